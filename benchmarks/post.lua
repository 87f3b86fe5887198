-- wrk: one chat request, again and again. From the environment: KEY, MODEL, SIZE of the prompt in
-- bytes, and HEADERS, more of them as `name: value` lines.
local prompt = string.sub(string.rep("lorem ipsum dolor sit amet ", 1 + tonumber(os.getenv("SIZE")) / 27),
  1, tonumber(os.getenv("SIZE")))
wrk.method = "POST"
wrk.body = '{"model":"' .. os.getenv("MODEL") .. '","messages":[{"role":"user","content":"'
  .. prompt .. '"}],"max_tokens":256,"stream":false}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
for name, value in string.gmatch(os.getenv("HEADERS") or "", "([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end
function init(args) request_text = wrk.format(nil, "/v1/chat/completions") end
function request() return request_text end
