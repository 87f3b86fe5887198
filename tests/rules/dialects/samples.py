"""What engines stream in each dialect, in their shapes; the counts are told at the end."""

import json
from typing import Any

from enforcement.rules.requests import Endpoint


def event(value: dict[str, Any], *, named: bool = True) -> bytes:
    text = json.dumps(value, separators=(",", ":"))
    name = f"event: {value['type']}\n" if named else ""
    return f"{name}data: {text}\n\n".encode()


def line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def messages(words: int = 3, stop: str = "end_turn", **usage: Any) -> list[bytes]:
    """Anthropic: 5 new, 22 read from the cache, 10 written to it."""
    read = {
        "input_tokens": 5,
        "cache_read_input_tokens": 22,
        "cache_creation_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
        "output_tokens": 1,
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m"}
    delta = {"type": "text_delta", "text": 'a "b"\n'}
    return [
        event({"type": "message_start", "message": message | {"usage": read | usage}}),
        event({"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}),
        event({"type": "ping"}),
        *[event({"type": "content_block_delta", "index": 0, "delta": delta})] * words,
        event({"type": "content_block_stop", "index": 0}),
        event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop, "stop_sequence": None},
                "usage": {"output_tokens": words},
            }
        ),
        event({"type": "message_stop"}),
    ]


def responses(words: int = 3, status: str = "completed", **response: Any) -> list[bytes]:
    """Responses: 27 in, 22 of them cached, one of the output for reasoning."""
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    usage = {
        "input_tokens": 27,
        "input_tokens_details": {"cached_tokens": 22},
        "output_tokens": words,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 27 + words,
    }
    begun = {"id": "resp_1", "object": "response", "status": "in_progress"}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    kinds: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *[{"type": "response.output_text.delta", "delta": "a "} | place] * words,
        {"type": "response.output_text.done", "text": "a " * words} | place,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {
            "type": f"response.{status}",
            "response": begun | {"status": status, "usage": usage} | response,
        },
    ]
    return [event(kind | {"sequence_number": n}) for n, kind in enumerate(kinds)]


def native(words: int = 3, stop_type: str = "eos") -> list[bytes]:
    """llama.cpp: 6 in, 2 of them cached, running counts in every event."""

    def counts(n: int) -> dict[str, Any]:
        return {"tokens_predicted": n, "tokens_evaluated": 6, "timings": {"cache_n": 2}}

    said = [
        event({"index": 0, "content": "a", "stop": False} | counts(n), named=False)
        for n in range(1, words + 1)
    ]
    last = {"index": 0, "content": "", "stop": True, "stop_type": stop_type} | counts(words)
    return [*said, event(last, named=False)]


def ollama(words: int = 3, reason: str = "stop", **counts: Any) -> list[bytes]:
    """Ollama: 27 in, 22 of them cached."""
    head = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
    word = {"message": {"role": "assistant", "content": "a "}, "done": False}
    said = {"prompt_eval_count": 27, "prompt_eval_cached_count": 22, "eval_count": words} | counts
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": reason}
    end = head | last | {name: value for name, value in said.items() if value is not None}
    return [*[line(head | word)] * words, line(end)]


def chat(words: int = 3) -> list[bytes]:
    """Chat Completions, with running usage as vLLM gives it."""
    events = []
    for n in range(words + 1):
        usage = {"prompt_tokens": 27, "completion_tokens": n}
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
        events.append(event({"id": "c", "choices": [choice], "usage": usage}, named=False))
    return [*events, b"data: [DONE]\n\n"]


STREAMS = {
    Endpoint.CHAT: chat(),
    Endpoint.RESPONSES: responses(),
    Endpoint.MESSAGES: messages(),
    Endpoint.OLLAMA_CHAT: ollama(),
    Endpoint.OLLAMA_GENERATE: ollama(),
    Endpoint.COMPLETION: native(),
}
BODIES: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    Endpoint.COMPLETIONS: {"model": "m", "prompt": "hi"},
    Endpoint.EMBEDDINGS: {"model": "m", "input": "hi"},
    Endpoint.RESPONSES: {"model": "m", "input": "hi"},
    Endpoint.MESSAGES: {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
    },
    Endpoint.COUNT_TOKENS: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    Endpoint.OLLAMA_CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    Endpoint.OLLAMA_GENERATE: {"model": "m", "prompt": "hi"},
    Endpoint.OLLAMA_EMBED: {"model": "m", "input": "hi"},
    Endpoint.COMPLETION: {"model": "m", "prompt": "hi"},
}
