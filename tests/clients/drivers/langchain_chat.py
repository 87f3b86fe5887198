"""Drives a chat model of LangChain: `openai` or `anthropic`, by the argument."""

import sys
from typing import Any

import anthropic
import openai
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from tests.clients.client import WORDS, Ask, Seen
from tests.clients.drivers import FUNCTION, serve


def _model(ask: Ask, provider: str) -> Any:
    shared: Any = {"model": ask.model, "api_key": ask.key, "max_tokens": ask.max_tokens}
    if provider == "anthropic":
        return ChatAnthropic(base_url=ask.url, **shared)
    return ChatOpenAI(base_url=f"{ask.url}/v1", stream_usage=True, **shared)


def call(ask: Ask) -> Seen:
    model = _model(ask, sys.argv[1])
    if ask.kind == "tools":
        return _seen_of(model.bind_tools([FUNCTION]).invoke(WORDS))
    if ask.kind == "whole":
        return _seen_of(model.invoke(WORDS))
    whole: Any = None
    for chunk in model.stream(WORDS):
        whole = chunk if whole is None else whole + chunk
    return _seen_of(whole)


def _seen_of(message: Any) -> Seen:
    usage, told = message.usage_metadata or {}, message.response_metadata
    return Seen(
        text=str(message.text),
        finish=told.get("finish_reason") or told.get("stop_reason") or "",
        # ChatAnthropic counts what `message_delta` says, where most local engines tell no input.
        input_tokens=usage.get("input_tokens") or None,
        output_tokens=usage.get("output_tokens"),
        tools=[called["name"] for called in message.tool_calls],
        note=_note_of(told),
    )


def _note_of(told: dict[str, Any]) -> dict[str, Any]:
    """LangChain shows no field of ours, but these two of the APIs in which the reason stands."""
    owner, _, reason = str(told.get("system_fingerprint")).partition(":")
    details = told.get("stop_details") or {}
    if owner == "comptroller":
        return {"reason": reason}
    return {"reason": details["category"]} if details.get("type") == "comptroller" else {}


if __name__ == "__main__":
    serve(call, openai.OpenAIError, anthropic.AnthropicError)
