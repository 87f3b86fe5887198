"""Inside a real `transformers serve`, started by the lines that docs/inprocess.md shows.

`COMPTROLLER_TEST_TRANSFORMERS` is the Python of an environment with transformers' serving part and
our base dependencies (CONTRIBUTING.md). It tells no counters: the tokens that it makes are counted
where its generation hands them over, those that nobody hears included.
"""

import asyncio
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from enforcement.rules.policy import OrderKind, PricePolicy, Rates, Unit
from enforcement.rules.wire import Outcome
from enforcement.sidecar.engines import UNMEASURED_ABORT_TOKENS
from tests.inprocess.stack import environment
from tests.sidecar.plane import Plane
from tests.sidecar.stack import AGENT, Caller, agent, budget, events_of, in_loop

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("COMPTROLLER_TEST_TRANSFORMERS", "")
START_S = 120
REVISION = "0" * 40
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PYTHON, reason="COMPTROLLER_TEST_TRANSFORMERS names no such Python"),
]
COUNTING = """
import os
from transformers.cli.serving import utils
made = os.open(os.environ["MADE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
put = utils.DirectStreamer.put
def counting(self, value):
    if not self._first:
        os.write(made, b"." * len(value))
    put(self, value)
utils.DirectStreamer.put = counting
"""


def documented_launcher() -> str:
    """The lines of docs/inprocess.md, as an operator would copy them."""
    page = (ROOT / "docs/inprocess.md").read_text()
    (lines,) = re.findall(r"```python\n(# serve\.py.*?)```", page, re.DOTALL)
    return str(lines)


class Serving(Caller):
    """A running `transformers serve` with the middleware in it."""

    def __init__(self, port: int, plane: Plane, made: Path) -> None:
        self.port = port
        self.plane = plane
        self._made = made

    def made(self) -> int:
        """Tokens made so far."""
        return self._made.stat().st_size

    def is_ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/comptroller/readyz", timeout=10) as answer:  # noqa: S310
            return bool(answer.status == 200)

    async def settled(self, events: int) -> None:
        async with asyncio.timeout(10):
            while len(self.plane.events) < events:
                await asyncio.sleep(0.02)


async def hub_with_a_tiny_model(folder: Path) -> Path:
    """A cache of Hugging Face's hub that holds `local/tiny`."""
    repository = folder / "hub" / "models--local--tiny"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    making = await asyncio.create_subprocess_exec(
        PYTHON, ROOT / "tests/inprocess/tiny_model.py", snapshot
    )
    assert await making.wait() == 0
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return folder / "hub"


@asynccontextmanager
async def transformers_serve(folder: Path, plane: Plane) -> AsyncIterator[Serving]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher, made = folder / "serve.py", folder / "made"
    launcher.write_text(COUNTING + documented_launcher())
    made.touch()
    hub = await hub_with_a_tiny_model(folder)
    command = [PYTHON, str(launcher), "serve", "local/tiny", "--device", "cpu"]
    command += ["--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(port)]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub), "OMP_NUM_THREADS": "2"}
    with (folder / "log").open("wb") as log:
        async with plane.running():
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | offline
                | environment(plane, folder / "spool", COMPTROLLER_CONTEXT_WINDOW="2048")
                | {"PYTHONPATH": paths, "MADE": str(made)},
            )
            found = Serving(port, plane, made)
            try:
                await serves(found, process)
                yield found
            finally:
                process.terminate()
                await asyncio.wait_for(process.wait(), 60)


async def serves(found: Serving, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.returncode is None:
        try:
            if await asyncio.to_thread(found.is_ready) and (await found.post(chat()))[0] == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.5)
    raise AssertionError("transformers serve did not start; see its log")


def chat(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "Tell a long story."}]
    return {"model": "local/tiny", "messages": messages, "max_tokens": 1} | fields


def test_inside_a_real_transformers_serve(tmp_path: Path) -> None:
    """Whole, streamed, killed, left: never more made than charged, and nothing made afterwards."""
    price = PricePolicy(id="p", model="", match="prefix", rates=Rates(input=1_000, output=4_000))
    cap = budget(100_000, Unit.OUTPUT_TOKENS)
    plane = Plane(agents=[agent()], budgets=[budget(10**12), cap], prices=[price])

    async def test() -> None:
        async with transformers_serve(tmp_path, plane) as node:
            status, _, _ = await node.post(chat(max_tokens=8))
            assert status == 200
            _, _, body = await node.post(chat(max_tokens=8, stream=True))
            assert len(events_of(body)) >= 8
            await node.settled(3)
            assert not any(event.estimated for event in plane.events.values())
            assert plane.tokens[1] == 1 + 8 + 8
            for how in ("killed", "left"):
                await stopped(node, how)
        assert plane.balance("budget-usd").held == 0  # SIGTERM sends everything home

    in_loop(test, within=350)()


async def stopped(node: Serving, how: str) -> None:
    """Stop a long stream, and compare what was made until and after its end with its charge."""
    plane, before = node.plane, node.made()
    events = set(plane.events)
    call = asyncio.create_task(node.post(chat(max_tokens=1_500, stream=True)))
    while node.made() < before + 20:
        await asyncio.sleep(0.02)
    at_the_cut = node.made() - before
    if how == "killed":
        plane.order(OrderKind.KILL, AGENT)
        _, _, body = await call
        assert events_of(body)[-1]["comptroller"]["reason"] == "agent_killed"
        plane.order(OrderKind.RESUME, AGENT)
    else:
        call.cancel()
    await node.settled(len(events) + 1)
    (event,) = (plane.events[key] for key in set(plane.events) - events)
    await asyncio.sleep(1)
    made = node.made() - before
    await asyncio.sleep(1)
    assert node.made() - before == made  # nothing more
    print(f"{how}: {made - at_the_cut} tokens after the cut, {event.output_tokens} charged")  # noqa: T201
    assert event.outcome is (Outcome.KILLED if how == "killed" else Outcome.CLIENT_GONE)
    assert made <= event.output_tokens <= made + UNMEASURED_ABORT_TOKENS
