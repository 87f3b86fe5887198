"""Drives `anthropic`, messages."""

from typing import Any

import anthropic

from tests.clients.client import Ask, Seen
from tests.clients.drivers import FUNCTION, MESSAGES, PARAMETERS, serve

TOOLS: Any = [{"name": FUNCTION["name"], "input_schema": PARAMETERS}]


def call(ask: Ask) -> Seen:
    with anthropic.Anthropic(base_url=ask.url, auth_token=ask.key) as client:
        asked: Any = {"model": ask.model, "messages": MESSAGES, "max_tokens": ask.max_tokens}
        if ask.kind == "stream":
            note: dict[str, Any] = {}
            with client.messages.stream(**asked) as stream:
                for event in stream:
                    note = _note_of(event) or note
                return _seen_of(stream.get_final_message(), note)
        tools = {"tools": TOOLS} if ask.kind == "tools" else {}
        answer = client.messages.create(**asked, **tools)
        return _seen_of(answer, _note_of(answer))


def _seen_of(answer: anthropic.types.Message, note: dict[str, Any]) -> Seen:
    usage = answer.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return Seen(
        text="".join(block.text for block in answer.content if block.type == "text"),
        finish=answer.stop_reason or "",
        input_tokens=usage.input_tokens + cached,
        output_tokens=usage.output_tokens,
        tools=[block.name for block in answer.content if block.type == "tool_use"],
        note=note,
    )


def _note_of(told: Any) -> dict[str, Any]:
    return (getattr(told, "model_extra", None) or {}).get("comptroller") or {}


if __name__ == "__main__":
    serve(call, anthropic.AnthropicError)
