"""Drives `openai`, chat completions."""

from typing import Any

import openai

from tests.clients.client import Ask, Seen
from tests.clients.drivers import FUNCTION, MESSAGES, serve

TOOLS: Any = [{"type": "function", "function": FUNCTION}]


def call(ask: Ask) -> Seen:
    with openai.OpenAI(base_url=f"{ask.url}/v1", api_key=ask.key) as client:
        asked: Any = {"model": ask.model, "messages": MESSAGES, "max_tokens": ask.max_tokens}
        if ask.kind == "stream":
            options: Any = {"include_usage": True}
            return read(
                client.chat.completions.create(**asked, stream=True, stream_options=options)
            )
        tools = {"tools": TOOLS} if ask.kind == "tools" else {}
        return seen_of(client.chat.completions.create(**asked, **tools))


def seen_of(answer: Any) -> Seen:
    (choice,) = answer.choices
    return Seen(
        text=choice.message.content or "",
        finish=choice.finish_reason,
        input_tokens=answer.usage.prompt_tokens,
        output_tokens=answer.usage.completion_tokens,
        tools=[called.function.name for called in choice.message.tool_calls or ()],
        note=note_of(answer),
    )


def read(stream: Any) -> Seen:
    seen = Seen()
    for chunk in stream:
        for choice in chunk.choices:
            seen.text += choice.delta.content or ""
            seen.finish = choice.finish_reason or seen.finish
        seen.note = note_of(chunk) or seen.note
        if getattr(chunk, "usage", None) is not None:
            seen.input_tokens = chunk.usage.prompt_tokens
            seen.output_tokens = chunk.usage.completion_tokens
    return seen


def note_of(told: Any) -> dict[str, Any]:
    return (getattr(told, "model_extra", None) or {}).get("comptroller") or {}


if __name__ == "__main__":
    serve(call, openai.OpenAIError)
