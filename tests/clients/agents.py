"""Agent programs from npm: Claude Code and Codex, each call a run in a home of its own.

Nothing is changed in them; their own documented settings point them to the sidecar.
"""

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.clients.client import NOTES, WORDS, Ask, Seen
from tests.clients.programs import bare_environment

RUN_S = 120
CODEX_SETTINGS = """\
model = "{model}"
model_provider = "comptroller"
web_search = "disabled"

[model_providers.comptroller]
name = "Comptroller"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "COMPTROLLER_KEY"
stream_max_retries = {retries}
"""
CODEX_RETRIES = 1


class _Agent:
    """What both share."""

    agent = True
    shows_note = False
    most_attempts = 1
    name: str
    dialect: str

    def __init__(self, *program: str | Path) -> None:
        self.program = program

    async def call(self, ask: Ask) -> Seen:
        with tempfile.TemporaryDirectory(prefix="comptroller-agent-") as folder:
            home = Path(folder)
            work = home / "work"
            work.mkdir()
            (work / "notes.txt").write_text(f"{NOTES}\n")
            environment = bare_environment() | {"HOME": folder} | self.environment(ask, home)
            return self.read(await _output(self.command(), work, environment))

    def environment(self, ask: Ask, home: Path) -> dict[str, str]:
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def read(self, output: str) -> Seen:
        raise NotImplementedError

    def close(self) -> None:
        """Every run has ended."""


async def _output(command: Sequence[str | Path], work: Path, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(RUN_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return output.decode()


class ClaudeCode(_Agent):
    """`claude -p`."""

    name = "Claude Code CLI"
    dialect = "messages"

    def environment(self, ask: Ask, home: Path) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": ask.url,
            "ANTHROPIC_AUTH_TOKEN": ask.key,
            "ANTHROPIC_MODEL": ask.model,
            "ANTHROPIC_SMALL_FAST_MODEL": ask.model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }

    def command(self) -> Sequence[str | Path]:
        return (*self.program, "-p", WORDS, "--output-format", "json")

    def read(self, output: str) -> Seen:
        told = json.loads(output)
        usage: dict[str, Any] = told.get("usage") or {}
        if told["is_error"]:
            message = str(told.get("result", ""))
            status = told.get("api_error_status")
            return Seen(error=f"API Error {status}", status=status, message=message)
        cached = usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        return Seen(
            text=told["result"],
            finish=told["stop_reason"] or "",
            input_tokens=usage["input_tokens"] + cached,
            output_tokens=usage["output_tokens"],
        )


class Codex(_Agent):
    """`codex exec`. It takes every status but 400 for something that passes."""

    name = "Codex CLI"
    dialect = "responses"
    most_attempts = 1 + CODEX_RETRIES

    def environment(self, ask: Ask, home: Path) -> dict[str, str]:
        folder = home / ".codex"
        folder.mkdir()
        settings = CODEX_SETTINGS.format(model=ask.model, url=ask.url, retries=CODEX_RETRIES)
        (folder / "config.toml").write_text(settings)
        return {"COMPTROLLER_KEY": ask.key}

    def command(self) -> Sequence[str | Path]:
        return (*self.program, "exec", "--json", "--skip-git-repo-check", WORDS)

    def read(self, output: str) -> Seen:
        seen = Seen()
        for line in output.splitlines():
            told = json.loads(line)
            if told["type"] == "turn.completed":
                usage = told["usage"]
                seen.finish = "turn.completed"
                seen.input_tokens, seen.output_tokens = (
                    usage["input_tokens"],
                    usage["output_tokens"],
                )
            elif told["type"] == "turn.failed":
                seen.error, seen.message = "turn.failed", told["error"]["message"]
            elif told["type"] == "item.completed" and told["item"]["type"] == "agent_message":
                seen.text += told["item"]["text"]
        return seen
