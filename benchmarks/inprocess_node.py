"""A model server that costs almost nothing, under uvicorn: what the in-process mode is measured on.

    python benchmarks/inprocess_node.py [--governed] [--vllm]

It prints its port. With `--governed` it has the middleware, configured by the environment; with
`--vllm` it says that it is vLLM, and so is asked to count each prompt beforehand.
`GET /cpu` tells the processor time of its process. Streams give as many chunks as `max_tokens`;
each tells the running usage, where that was asked for, as vLLM's do.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvicorn

from enforcement.inprocess import Comptroller

Send = Callable[[dict[str, Any]], Awaitable[None]]
PROMPT_TOKENS = 20
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
CHUNK = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1795868060'
    b',"model":"fast","choices":[{"index":0,"delta":{"content":"river "},"logprobs":null'
    b',"finish_reason":null}]%b}\n\n'
)


async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
    """Serve."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    path = scope["path"]
    if path == "/v1/chat/completions":
        body = json.loads((await receive())["body"])
        if body.get("stream"):
            await stream(body, send)
        else:
            await whole(ANSWER, send)
    elif path == "/v1/models":
        owner = "vllm" if "--vllm" in sys.argv else "somebody"
        await whole({"data": [{"id": "fast", "owned_by": owner, "max_model_len": 8192}]}, send)
    elif path == "/version":
        await whole({"version": "0.32.0"}, send)
    elif path == "/tokenize":
        await whole({"count": PROMPT_TOKENS}, send)
    else:
        await whole({"cpu_ns": time.process_time_ns()}, send)


def usage(n: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": PROMPT_TOKENS + n,
        "completion_tokens": n,
    }


ANSWER = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion",
    "created": 1795868060,
    "model": "fast",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "river " * 120},
            "finish_reason": "length",
        }
    ],
    "usage": usage(120),
}


async def whole(value: dict[str, Any], send: Send) -> None:
    body = json.dumps(value, separators=(",", ":")).encode()
    fields = [*JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def stream(body: dict[str, Any], send: Send) -> None:
    running = (body.get("stream_options") or {}).get("continuous_usage_stats", False)
    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
    for n in range(1, body["max_tokens"] + 1):
        told = b""
        if running:
            told = b',"usage":' + json.dumps(usage(n), separators=(",", ":")).encode()
        await send({"type": "http.response.body", "body": CHUNK % told, "more_body": True})
        await asyncio.sleep(0)  # an engine makes its tokens one by one
    if (body.get("stream_options") or {}).get("include_usage"):
        last = (
            b'data: {"id":"c","choices":[],"usage":%b}\n\n'
            % json.dumps(usage(body["max_tokens"]), separators=(",", ":")).encode()
        )
        await send({"type": "http.response.body", "body": last, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--governed", action="store_true")
    parser.add_argument("--vllm", action="store_true")
    served: Any = Comptroller(app) if parser.parse_args().governed else app  # type: ignore[arg-type]
    config = uvicorn.Config(
        served, host="127.0.0.1", port=0, log_level="error", loop="uvloop", http="httptools"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
