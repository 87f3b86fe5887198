"""Drives LiteLLM's SDK as a client of an OpenAI-compatible server."""

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import: it would fetch one

import litellm
import openai

from tests.clients.client import Ask, Seen
from tests.clients.drivers import FUNCTION, MESSAGES, serve
from tests.clients.drivers.openai_sdk import read, seen_of

TOOLS: Any = [{"type": "function", "function": FUNCTION}]
RETRIES = 2  # what the SDKs do by themselves, LiteLLM only when it is asked to


def call(ask: Ask) -> Seen:
    asked: Any = {"model": f"openai/{ask.model}", "messages": MESSAGES}
    asked |= {"api_base": f"{ask.url}/v1", "api_key": ask.key, "max_tokens": ask.max_tokens}
    asked |= {"max_retries": RETRIES}
    if ask.kind == "stream":
        options = {"include_usage": True}
        return read(litellm.completion(**asked, stream=True, stream_options=options))
    tools = {"tools": TOOLS} if ask.kind == "tools" else {}
    return seen_of(litellm.completion(**asked, **tools))


if __name__ == "__main__":
    serve(call, openai.OpenAIError)
