"""Calls a model through LiteLLM's SDK, with its generic API callback as an operator sets it up.

Runs in LiteLLM's own environment, on JSON from standard input: `model_url`, `endpoint`, `key`,
`log_format`, `calls`. Prints what each call used, as its caller saw it; ends with standard input.
"""

import asyncio
import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import: it would fetch one
os.environ["DEFAULT_FLUSH_INTERVAL_SECONDS"] = "1"

import litellm

MESSAGES = [{"role": "user", "content": "Name a river."}]


async def call(asked: dict[str, Any], number: int) -> list[int]:
    """Every second one is a stream; each asks for a token more than the one before."""
    more: dict[str, Any] = {"max_tokens": 5 + number, "metadata": {"tags": ["agent:a1"]}}
    more |= {"api_base": f"{asked['model_url']}/v1", "api_key": "none", "user": "u-1"}
    if number % 2:
        more |= {"stream": True, "stream_options": {"include_usage": True}}
    answer = await litellm.acompletion(model="openai/fast", messages=MESSAGES, **more)
    usage = getattr(answer, "usage", None)
    if number % 2:
        async for chunk in answer:
            usage = getattr(chunk, "usage", None) or usage
    assert usage is not None
    return [usage.prompt_tokens, usage.completion_tokens]


async def run(asked: dict[str, Any]) -> None:
    litellm.callback_settings = {
        "comptroller": {
            "callback_type": "generic_api",
            "endpoint": asked["endpoint"],
            "headers": {"Authorization": f"Bearer {asked['key']}"},
            "log_format": asked["log_format"],
            "max_retries": 3,
        }
    }
    litellm.logging_callback_manager.add_litellm_callback("comptroller")
    used = [await call(asked, number) for number in range(asked["calls"])]
    print(json.dumps(used), flush=True)  # noqa: T201 -- to the test
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.stdin.readline())))
