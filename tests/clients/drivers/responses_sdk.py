"""Drives `openai`, responses."""

from typing import Any

import openai

from tests.clients.client import WORDS, Ask, Seen
from tests.clients.drivers import FUNCTION, serve
from tests.clients.drivers.openai_sdk import note_of

TOOLS: Any = [{"type": "function", "strict": False, **FUNCTION}]


def call(ask: Ask) -> Seen:
    with openai.OpenAI(base_url=f"{ask.url}/v1", api_key=ask.key) as client:
        asked: Any = {"model": ask.model, "input": WORDS, "max_output_tokens": ask.max_tokens}
        if ask.kind == "stream":
            ends = ("response.completed", "response.incomplete")
            events = client.responses.create(**asked, stream=True)
            (last,) = [event.response for event in events if event.type in ends]
            return _seen_of(last)
        tools = {"tools": TOOLS} if ask.kind == "tools" else {}
        return _seen_of(client.responses.create(**asked, **tools))


def _seen_of(answer: Any) -> Seen:
    details = answer.incomplete_details
    return Seen(
        text=answer.output_text,
        finish=details.reason if details else answer.status,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        tools=[item.name for item in answer.output if item.type == "function_call"],
        note=note_of(answer),
    )


if __name__ == "__main__":
    serve(call, openai.OpenAIError)
