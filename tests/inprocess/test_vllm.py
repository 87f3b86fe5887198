"""Inside a real vLLM: its counters are the truth, its abort is ours.

`COMPTROLLER_TEST_VLLM` is the Python of an environment with vLLM and our base dependencies; how to
make one is in CONTRIBUTING.md. Starting it takes a minute or two.
"""

import asyncio
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from enforcement.rules.policy import HoldMode, OrderKind, PricePolicy, Rates, Unit
from enforcement.rules.wire import Outcome
from tests.inprocess.stack import environment
from tests.sidecar.plane import Plane
from tests.sidecar.stack import AGENT, Caller, agent, budget, events_of, in_loop

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("COMPTROLLER_TEST_VLLM", "")
START_S = 400
CAP = 200
MIDDLEWARE = ("--max-num-seqs", "8", "--middleware", "enforcement.inprocess.Comptroller")
READY = "/comptroller/readyz"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON, reason="COMPTROLLER_TEST_VLLM names no Python with vLLM"),
]


class Vllm(Caller):
    """A running vLLM with the middleware in it."""

    def __init__(self, port: int, plane: Plane) -> None:
        self.port = port
        self.plane = plane

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:  # noqa: S310
            return str(answer.read().decode())

    def counter(self, name: str) -> int:
        return int(
            float(re.findall(rf"^vllm:{name}{{.*}} (\S+)", self.page("/metrics"), re.MULTILINE)[0])
        )

    async def settled(self, events: int) -> None:
        async with asyncio.timeout(10):
            while len(self.plane.events) < events:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def vllm(
    folder: Path, plane: Plane, *, options: Sequence[str] = MIDDLEWARE, page: str = READY
) -> AsyncIterator[Vllm]:
    """A real vLLM, once `page` answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    model = folder / "tiny"
    making = await asyncio.create_subprocess_exec(
        PYTHON, ROOT / "tests/inprocess/tiny_model.py", model
    )
    assert await making.wait() == 0
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "bfloat16", "--max-model-len", "2048"]
    command += ["--enforce-eager", *options]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    small = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with (folder / "log").open("wb") as log:
        async with plane.running():
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | quiet
                | small
                | environment(plane, folder / "spool")
                | {"PYTHONPATH": str(ROOT), "VLLM_HOST_IP": "127.0.0.1", "OMP_NUM_THREADS": "2"},
            )
            found = Vllm(port, plane)
            try:
                await ready(found, process, page)
                yield found
            finally:
                process.terminate()
                await asyncio.wait_for(process.wait(), 60)


async def ready(found: Vllm, process: asyncio.subprocess.Process, page: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.returncode is None:
        try:
            await asyncio.to_thread(found.page, page)
        except OSError:
            await asyncio.sleep(1)
        else:
            return
    raise AssertionError("vLLM did not start; see its log")


def chat(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "Tell a long story."}]
    return {"model": "tiny", "messages": messages, "ignore_eos": True} | fields


def test_inside_a_real_vllm(tmp_path: Path) -> None:
    """Whole, streamed, cut at a cap, killed: to the token, and its slot is free at once."""
    rates = Rates(input=1_000_000, cached_input=1_000_000, output=4_000_000)
    price = PricePolicy(id="p", model="", match="prefix", rates=rates)
    cap = budget(CAP, Unit.OUTPUT_TOKENS, hold_mode=HoldMode.METERED)
    plane = Plane(agents=[agent()], budgets=[budget(10**12), cap], prices=[price])

    async def test() -> None:
        async with vllm(tmp_path, plane) as node:
            status, _, _ = await node.post(chat(max_tokens=8))
            assert status == 200
            _, _, body = await node.post(chat(max_tokens=8, stream=True))
            assert len(events_of(body)) >= 8
            _, _, body = await node.post(chat(max_tokens=900, stream=True))
            assert events_of(body)[-1]["comptroller"]["reason"] == "budget_exhausted"
            await node.settled(3)
            truth = node.counter("generation_tokens_total")
            async with asyncio.timeout(10):
                while plane.balance("budget-output_tokens").spent < truth:
                    await asyncio.sleep(0.02)
            assert plane.balance("budget-output_tokens").spent == truth <= CAP
            assert plane.tokens[1] == truth
            assert not any(event.estimated for event in plane.events.values())

            plane.change_policy(budgets=[budget(10**12)])
            killing = asyncio.create_task(node.post(chat(max_tokens=1_500, stream=True)))
            while node.counter("generation_tokens_total") < truth + 20:
                await asyncio.sleep(0.02)
            plane.order(OrderKind.KILL, AGENT)
            _, _, body = await killing
            ended = time.monotonic()
            while node.counter("num_requests_running"):
                await asyncio.sleep(0.01)
            free_after_s = time.monotonic() - ended
            print(f"slot free {1000 * free_after_s:.0f} ms after the last byte")  # noqa: T201
            await node.settled(4)
            assert free_after_s <= 0.5  # the goal is 0.1; a busy machine is slower
            assert events_of(body)[-1]["comptroller"]["reason"] == "agent_killed"
            assert plane.tokens[1] == node.counter("generation_tokens_total")
            killed = [e for e in plane.events.values() if e.outcome is Outcome.KILLED]
            assert [event.estimated for event in killed] == [False]
        assert plane.balance("budget-usd").held == 0  # SIGTERM sends everything home

    in_loop(test, within=800)()
