"""A serving node that speaks what all clients speak, fast, and calls a tool if one is offered."""

import asyncio
import json
from typing import Any

from tests.clients.client import TOOL
from tests.sidecar.engine import FakeEngine, Writer, end_chunks, send_chunk, send_json, start_stream
from tests.sidecar.polyglot import Anthropic, Responses

# What it calls, by the name of the tool that is offered: agent programs bring their own.
ARGUMENTS: dict[str, dict[str, Any]] = {
    TOOL: {"query": "cats"},
    "Read": {"file_path": "notes.txt"},
    "exec_command": {"cmd": "cat notes.txt"},
    "shell_command": {"command": "cat notes.txt"},
    "shell": {"command": ["cat", "notes.txt"]},
}
_RESULTS = ("tool_result", "function_call_output")


class Node(Anthropic, Responses):
    """Chat completions, messages and responses, with llama.cpp's counting of prompts."""

    routes = Anthropic.routes | Responses.routes

    def __init__(
        self, *, delay: float = 0.0, natural_length: int = 1_000_000, calls_tools: bool = False
    ) -> None:
        super().__init__(kind="llamacpp", delay=delay, script=_chat)
        self.natural_length = natural_length
        self.calls_tools = calls_tools
        self.results: list[str] = []  # of the tools that it called

    def wants_tool(self, body: dict[str, Any]) -> bool:
        """Call one that it knows, once: the answer to its result is plain text."""
        if not self.calls_tools or not body.get("tools"):
            return False
        text = json.dumps(body.get("messages") or body.get("input"))
        if any(f'"type": "{kind}"' in text for kind in _RESULTS):
            self.results.append(text)
            return False
        offered = [
            tool.get("name") or tool.get("function", {}).get("name") for tool in body["tools"]
        ]
        known = [name for name in ARGUMENTS if name in offered]
        for name in known[:1]:
            self.call = {"name": name, "arguments": ARGUMENTS[name]}
        return bool(known)

    async def speak(self, path: str, body: dict[str, Any], writer: Writer) -> None:
        speaker = Responses if path == "/v1/responses" else Anthropic
        await speaker.speak(self, path, body, writer)


async def _chat(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    assert isinstance(engine, Node)
    if not engine.wants_tool(body):
        await engine.generate(body, writer)
        return
    called = {"name": engine.call["name"], "arguments": json.dumps(engine.call["arguments"])}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": called}]
    await asyncio.sleep(engine.delay)
    engine.output_tokens += 9
    if not body.get("stream"):
        answer = engine.answer(9, "tool_calls")
        answer["choices"][0]["message"] = {"role": "assistant", "tool_calls": calls}
        send_json(writer, answer)
        return
    start_stream(writer)
    engine.send(writer, engine.event({"role": "assistant", "tool_calls": calls}, 9, body))
    engine.send(writer, engine.event({}, 9, body, reason="tool_calls"))
    send_chunk(writer, b"data: [DONE]\n\n")
    end_chunks(writer)
