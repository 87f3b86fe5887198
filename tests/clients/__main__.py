# ruff: noqa: T201 -- a command that prints
"""Try every client by every behaviour, and print the table.

    ./run clients [--only WORD] [--real]

Installs the clients of npm and LiteLLM into `.clients` first (about 1 GB, once). `--real` puts
llama.cpp with a small model behind the sidecar instead of the scripted node; what needs a script
(tool calls) and agents, whose prompts are too long for it, stay out then. Exits 1 if any client
does not behave.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.clients.agents import ClaudeCode, Codex
from tests.clients.behaviours import BEHAVIOURS, Arena, Behaviour
from tests.clients.places import litellm_python, npm_modules
from tests.clients.programs import PYTHON_CLIENTS, Client, Driven
from tests.collectors.modelserver import model_server
from tests.sidecar.engine import FakeEngine
from tests.sidecar.test_real_engine import RealEngine

TRY_S = 150
SCRIPTED = ("tool call",)


def all_clients() -> list[Client]:
    """Those of the lock, and those that are installed for this."""
    found: list[Client] = list(PYTHON_CLIENTS)
    litellm = (litellm_python(), "-m", "tests.clients.drivers.litellm_sdk")
    found.append(Driven("LiteLLM SDK", "chat", litellm))
    npm = npm_modules()
    if npm is None:
        print("no Node here: the clients of npm are left out", file=sys.stderr)
        return found
    modules = npm / "node_modules"
    found.append(Driven("openai (Node)", "chat", ("node", npm / "openai_node.mjs")))
    claude = ClaudeCode("node", modules / "@anthropic-ai/claude-code/cli-wrapper.cjs")
    return [*found, claude, Codex(modules / ".bin/codex")]


@contextlib.contextmanager
def engine_of(*, real: bool) -> Iterator[FakeEngine | None]:
    """The real engine, or None for a scripted node of each try."""
    if not real:
        yield None
        return
    with model_server() as url:
        yield RealEngine(url)


async def tried(client: Client, behaviour: Behaviour, real: FakeEngine | None) -> tuple[bool, str]:
    """Whether the client behaves, and what was seen."""
    with tempfile.TemporaryDirectory(prefix="comptroller-clients-") as folder:
        try:
            async with asyncio.timeout(TRY_S):
                return True, await behaviour(client, Arena(Path(folder), real=real))
        except (AssertionError, TimeoutError) as error:
            return False, f"**no**: {type(error).__name__} {error}"[:200]


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run clients", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", default="", metavar="WORD", help="clients with this in their name"
    )
    parser.add_argument("--real", action="store_true", help="a real model behind the sidecar")
    asked = parser.parse_args()
    clients = [c for c in all_clients() if asked.only.lower() in c.name.lower()]
    names = [name for name in BEHAVIOURS if not (asked.real and name in SCRIPTED)]
    if asked.real:
        clients = [client for client in clients if not client.agent]
    print(f"| client | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    good = bool(clients)
    with engine_of(real=asked.real) as real:
        for client in clients:
            cells = []
            for name in names:
                fine, cell = asyncio.run(tried(client, BEHAVIOURS[name], real))
                good &= fine
                cells.append(cell)
            client.close()
            print(f"| {client.name} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
