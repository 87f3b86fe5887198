"""Clients as programs of their own, beside the test: started once, asked by lines."""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.clients.client import Ask, Seen

ROOT = Path(__file__).parents[2]
END_S = 10


class Client(Protocol):
    """A real client. `dialect`: what it speaks.

    `agent`: it is a whole agent, which only streams, and runs the tools that the model calls.
    `shows_note`: its caller sees why a stream was cut.
    `most_attempts`: how often it tries a call that is refused for good.
    """

    name: str
    dialect: str
    agent: bool
    shows_note: bool
    most_attempts: int

    async def call(self, ask: Ask) -> Seen:
        """Make the call; an error of the client is part of what is seen."""

    def close(self) -> None: ...


class Driven:
    """A client behind a driver of `tests.clients.drivers`."""

    agent = False
    most_attempts = 1

    def __init__(
        self,
        name: str,
        dialect: str,
        command: Sequence[str | Path],
        *,
        environment: dict[str, str] | None = None,
        shows_note: bool = True,
    ) -> None:
        self.shows_note = shows_note
        self.name = name
        self.dialect = dialect
        self._command = command
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None

    async def call(self, ask: Ask) -> Seen:
        return await asyncio.to_thread(self._call, ask)

    def _call(self, ask: Ask) -> Seen:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(dataclasses.asdict(ask)) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the driver of {self.name} ended with {process.wait(END_S)}"
        return Seen(**json.loads(line))

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=bare_environment() | self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self._process

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate(timeout=END_S)


def bare_environment() -> dict[str, str]:
    """What a program gets: no key, proxy or address of this machine's own."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def _python(
    name: str, dialect: str, driver: str, *arguments: str, shows_note: bool = True
) -> Driven:
    command = (sys.executable, "-m", f"tests.clients.drivers.{driver}", *arguments)
    return Driven(name, dialect, command, shows_note=shows_note)


PYTHON_CLIENTS = (
    _python("openai (Python)", "chat", "openai_sdk"),
    _python("openai (Python), responses", "responses", "responses_sdk"),
    _python("ollama (Python)", "chat", "ollama_sdk", shows_note=False),
    _python("anthropic (Python)", "messages", "anthropic_sdk"),
    _python("LangChain ChatOpenAI", "chat", "langchain_chat", "openai"),
    _python("LangChain ChatAnthropic", "messages", "langchain_chat", "anthropic"),
)
