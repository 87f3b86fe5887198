-- wrk: one chat request of about a kilobyte, again and again. KEY and MODEL from the environment.
local prompt = string.rep("lorem ipsum dolor sit amet ", 26)
wrk.method = "POST"
wrk.body = '{"model":"' .. os.getenv("MODEL") .. '","messages":[{"role":"user","content":"'
  .. prompt .. '"}],"max_tokens":256,"stream":false}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
local bad = 0
function init(args) request_text = wrk.format(nil, "/v1/chat/completions") end
function request() return request_text end
