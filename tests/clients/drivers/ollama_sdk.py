"""Drives `ollama`. It never tries again by itself: the loop on 429 is what its caller writes."""

import time
from typing import Any

import ollama

from tests.clients.client import Ask, Seen
from tests.clients.drivers import FUNCTION, MESSAGES, serve

TOOLS: Any = [{"type": "function", "function": FUNCTION}]
TOO_MANY = 429
PAUSE_S = 1.5
TRIES = 4


def call(ask: Ask) -> Seen:
    for _ in range(TRIES - 1):
        try:
            return _call(ask)
        except ollama.ResponseError as error:
            if error.status_code != TOO_MANY:
                raise
            time.sleep(PAUSE_S)
    return _call(ask)


def _call(ask: Ask) -> Seen:
    client = ollama.Client(ask.url, headers={"authorization": f"Bearer {ask.key}"})
    asked: Any = {"model": ask.model, "messages": MESSAGES}
    asked["options"] = {"num_predict": ask.max_tokens}
    if ask.kind == "stream":
        return _read(client.chat(**asked, stream=True))
    tools = {"tools": TOOLS} if ask.kind == "tools" else {}
    return _read([client.chat(**asked, **tools)])


def _read(lines: Any) -> Seen:
    seen = Seen()
    for line in lines:
        seen.text += line.message.content or ""
        seen.tools += [called.function.name for called in line.message.tool_calls or ()]
        if line.done:
            seen.finish = line.done_reason
            seen.input_tokens, seen.output_tokens = line.prompt_eval_count, line.eval_count
    return seen


if __name__ == "__main__":
    serve(call, ollama.ResponseError)
