"""Serving nodes that speak Anthropic's, OpenAI's newer and Ollama's dialect, over real sockets.

`Ollama` stands in for a server that no package index ships: its lines, counts and routes are those
of Ollama's API documentation and of the types of its own Python client, which drives it in tests.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.sidecar.engine import (
    PROMPT_TOKENS,
    FakeEngine,
    Writer,
    end_chunks,
    send_chunk,
    send_json,
)

CACHED = 3  # of the prompt
CALL = {"name": "search", "arguments": {"query": "cats"}}
EVENTS = b"text/event-stream"
LINES = b"application/x-ndjson"


def start(writer: Writer, kind: bytes) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind
    )


def event(writer: Writer, value: dict[str, Any]) -> None:
    text = json.dumps(value, separators=(",", ":"))
    send_chunk(writer, f"event: {value['type']}\ndata: {text}\n\n".encode())


def line(writer: Writer, value: dict[str, Any]) -> None:
    send_chunk(writer, json.dumps(value).encode() + b"\n")


class Polyglot(FakeEngine):
    """Counts what it makes, stops when nobody listens, calls a tool if one is offered."""

    routes: frozenset[str] = frozenset()
    call: dict[str, Any] = CALL  # the tool that it calls, and how

    def wants_tool(self, body: dict[str, Any]) -> bool:
        return bool(body.get("tools"))

    async def _answer(
        self,
        path: str,
        head: str,
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: Writer,
    ) -> None:
        if path not in self.routes:
            await super()._answer(path, head, body, reader, writer)
            return
        self.calls += 1
        self.requests.append(body)
        self.heads.append(head)
        await self.speak(path, body, writer)

    async def speak(self, path: str, body: dict[str, Any], writer: Writer) -> None:
        raise NotImplementedError

    async def words(self, limit: int, writer: Writer) -> AsyncIterator[int]:
        """Make tokens one by one until there are enough or nobody listens."""
        self.prompt_tokens += PROMPT_TOKENS
        for n in range(1, min(limit, self.natural_length) + 1):
            await asyncio.sleep(self.delay)
            if writer.is_closing() or self._gone(writer):
                raise ConnectionError
            self.output_tokens += 1
            yield n
            await writer.drain()

    async def count(self, limit: int, writer: Writer) -> int:
        produced = 0
        async for n in self.words(limit, writer):
            produced = n
        return produced


class Anthropic(Polyglot):
    """Messages and count_tokens; `thinks`: a block of thoughts stands before the text."""

    thinks = False
    more_usage: dict[str, Any] = {}

    routes = frozenset(["/v1/messages", "/v1/messages/count_tokens"])

    async def speak(self, path: str, body: dict[str, Any], writer: Writer) -> None:
        if path.endswith("count_tokens"):
            send_json(writer, {"input_tokens": PROMPT_TOKENS})
        elif body.get("stream"):
            await self._stream(body, writer)
        else:
            count = await self.count(body["max_tokens"], writer)
            send_json(writer, self._message(body, count))

    def _reason(self, body: dict[str, Any], count: int) -> str:
        if self.wants_tool(body):
            return "tool_use"
        return "max_tokens" if count == body["max_tokens"] else "end_turn"

    def _message(self, body: dict[str, Any], count: int) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": "word " * count}]
        if self.wants_tool(body):
            tool = {"name": self.call["name"], "input": self.call["arguments"]}
            content.append({"type": "tool_use", "id": "toolu_1"} | tool)
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.model,
            "stop_reason": self._reason(body, count),
            "stop_sequence": None,
            "usage": self._usage() | {"output_tokens": count},
        }

    def _usage(self) -> dict[str, Any]:
        read = {"input_tokens": PROMPT_TOKENS - CACHED, "cache_read_input_tokens": CACHED}
        return read | self.more_usage

    async def _stream(self, body: dict[str, Any], writer: Writer) -> None:
        start(writer, EVENTS)
        message = self._message(body, 0) | {"content": [], "stop_reason": None}
        event(writer, {"type": "message_start", "message": message})
        if self.thinks:
            thoughts = {"type": "thinking", "thinking": "", "signature": ""}
            event(writer, {"type": "content_block_start", "index": 0, "content_block": thoughts})
            event(writer, {"type": "content_block_stop", "index": 0})
        block, place = {"type": "text", "text": ""}, int(self.thinks)
        event(writer, {"type": "content_block_start", "index": place, "content_block": block})
        count = 0
        async for n in self.words(body["max_tokens"], writer):
            count, delta = n, {"type": "text_delta", "text": "word "}
            event(writer, {"type": "content_block_delta", "index": place, "delta": delta})
        event(writer, {"type": "content_block_stop", "index": place})
        if self.wants_tool(body):
            self._call(writer)
        reason = {"stop_reason": self._reason(body, count), "stop_sequence": None}
        usage = {"output_tokens": count}
        event(writer, {"type": "message_delta", "delta": reason, "usage": usage})
        event(writer, {"type": "message_stop"})
        end_chunks(writer)

    def _call(self, writer: Writer) -> None:
        block = {"type": "tool_use", "id": "toolu_1", "name": self.call["name"], "input": {}}
        event(writer, {"type": "content_block_start", "index": 1, "content_block": block})
        text = json.dumps(self.call["arguments"])
        delta = {"type": "input_json_delta", "partial_json": text}
        event(writer, {"type": "content_block_delta", "index": 1, "delta": delta})
        event(writer, {"type": "content_block_stop", "index": 1})


class Responses(Polyglot):
    """OpenAI's Responses."""

    routes = frozenset(["/v1/responses"])

    async def speak(self, path: str, body: dict[str, Any], writer: Writer) -> None:
        limit = body["max_output_tokens"]
        if not body.get("stream"):
            count = await self.count(limit, writer)
            send_json(writer, self._response(body, count))
            return
        start(writer, EVENTS)
        sequence = 0

        def say(kind: str, **fields: Any) -> None:
            nonlocal sequence
            event(writer, {"type": kind, "sequence_number": sequence} | fields)
            sequence += 1

        begun = self._response(body, 0) | {"status": "in_progress", "output": [], "usage": None}
        say("response.created", response=begun)
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress"}
        say("response.output_item.added", output_index=0, item=item | {"content": []})
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": []}
        say("response.content_part.added", part=part, **place)
        count = 0
        async for n in self.words(limit, writer):
            count = n
            say("response.output_text.delta", delta="word ", logprobs=[], **place)
        whole = self._response(body, count)
        say("response.output_text.done", text="word " * count, logprobs=[], **place)
        for index, finished in enumerate(whole["output"]):
            if index:
                say("response.output_item.added", output_index=index, item=finished)
            say("response.output_item.done", output_index=index, item=finished)
        say(f"response.{whole['status']}", response=whole)
        end_chunks(writer)

    def _response(self, body: dict[str, Any], count: int) -> dict[str, Any]:
        part = {"type": "output_text", "text": "word " * count, "annotations": []}
        item: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant"}
        output = [item | {"status": "completed", "content": [part]}]
        if self.wants_tool(body):
            called = {"name": self.call["name"], "arguments": json.dumps(self.call["arguments"])}
            call = {"type": "function_call", "id": "fc_1", "call_id": "call_1"}
            output.append(call | called | {"status": "completed"})
        limited = count == body["max_output_tokens"]
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": self.model,
            "status": "incomplete" if limited else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if limited else None,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": PROMPT_TOKENS,
                "input_tokens_details": {"cached_tokens": CACHED},
                "output_tokens": count,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": PROMPT_TOKENS + count,
            },
        }


class Ollama(Polyglot):
    """Ollama's own API; `old`: a version that leaves the prompt's count out when it is cached."""

    routes = frozenset(["/api/chat", "/api/generate", "/api/embed", "/api/version", "/api/show"])
    old = False

    async def _answer(
        self,
        path: str,
        head: str,
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: Writer,
    ) -> None:
        if path == "/v1/models":
            models = [{"id": self.model, "object": "model", "owned_by": "library"}]
            send_json(writer, {"object": "list", "data": models})
        elif path == "/api/version":
            send_json(writer, {"version": "0.30.1"})
        elif path == "/api/show":
            send_json(writer, {"model_info": {"llama.context_length": self.context}})
        else:
            await super()._answer(path, head, body, reader, writer)

    async def speak(self, path: str, body: dict[str, Any], writer: Writer) -> None:
        if path == "/api/embed":
            counted = {"prompt_eval_count": PROMPT_TOKENS}
            send_json(writer, {"model": self.model, "embeddings": [[0.5]]} | counted)
            return
        limit, chat = body["options"]["num_predict"], path == "/api/chat"
        if body.get("stream") is False:
            count = await self.count(limit, writer)
            send_json(
                writer, self._line(body, "word " * count, chat=chat) | self._end(count, limit)
            )
            return
        start(writer, LINES)
        count = 0
        async for n in self.words(limit, writer):
            count = n
            line(writer, self._line({}, "word ", chat=chat) | {"done": False})
        line(writer, self._line(body, "", chat=chat) | self._end(count, limit))
        end_chunks(writer)

    def _line(self, body: dict[str, Any], text: str, *, chat: bool) -> dict[str, Any]:
        head = {"model": self.model, "created_at": "2026-11-28T00:00:00Z"}
        if not chat:
            return head | {"response": text}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.wants_tool(body):
            message["tool_calls"] = [{"function": self.call}]
        return head | {"message": message}

    def _end(self, count: int, limit: int) -> dict[str, Any]:
        counts = {"prompt_eval_count": PROMPT_TOKENS, "prompt_eval_cached_count": CACHED}
        end = {
            "done": True,
            "done_reason": "length" if count == limit else "stop",
            "total_duration": 5,
            "eval_count": count,
        }
        return end if self.old else end | counts
