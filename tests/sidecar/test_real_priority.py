"""A real vLLM with `--scheduling-policy priority`: an agent's priority changes who is answered first.

`COMPTROLLER_TEST_VLLM` names its Python, as for the in-process mode.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from enforcement.rules.policy import AgentPolicy, PricePolicy
from enforcement.sidecar.config import Config, parse_upstream
from enforcement.sidecar.service import Service
from tests.inprocess.test_vllm import PYTHON, Vllm, chat, vllm
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import TOKEN, Plane, key_policy
from tests.sidecar.stack import PRICE, Stack, agent, in_loop, ready

URGENT = "cmp_live_urgent_secret"
ONE_AT_A_TIME = ("--scheduling-policy", "priority", "--max-num-seqs", "1")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON, reason="COMPTROLLER_TEST_VLLM names no Python with vLLM"),
]


async def order_of_answers(folder: Path, node: Vllm, *, priority: bool) -> str:
    """Three calls of a usual agent wait at the engine, then one of an urgent agent comes."""
    plane = Plane(
        agents=[
            agent(),
            AgentPolicy(id="urgent", slug="urgent", keys=[key_policy(URGENT)], priority=9),
        ],
        prices=[PricePolicy(id="p", model="", match="prefix", rates=PRICE.rates)],
    )
    upstream = replace(parse_upstream(f"node={node.url}", index=0, environ={}), priority=priority)
    async with plane.running():
        service = Service(
            Config(
                upstreams=(upstream,),
                control_url=plane.url,
                token=TOKEN,
                spool_dir=folder,
                listen_port=0,
            )
        )
        running = asyncio.create_task(service.run())
        world = Stack(FakeEngine(), plane, service)
        await ready(world)
        answered: list[str] = []

        async def ask(name: str, tokens: int, **headers: str) -> None:
            status, _, _ = await world.post(chat(max_tokens=tokens), **headers)
            assert status == 200
            answered.append(name)

        calls = [asyncio.create_task(ask("first", 400))]
        await waiting(node, 0)
        for number in range(3):
            calls.append(asyncio.create_task(ask("usual", 40)))
            await waiting(node, number + 1)
        calls.append(asyncio.create_task(ask("urgent", 40, authorization=f"Bearer {URGENT}")))
        await waiting(node, 4)
        await asyncio.gather(*calls)
        service.stop()
        assert await running == 0
    return " ".join(answered)


async def waiting(node: Vllm, calls: int) -> None:
    """Wait until the engine works on one call and has so many others waiting."""
    while (node.counter("num_requests_running"), node.counter("num_requests_waiting")) != (
        1,
        calls,
    ):
        await asyncio.sleep(0.02)


def test_an_urgent_agent_is_answered_first_where_the_engine_knows_priorities(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with vllm(tmp_path, Plane(agents=[]), options=ONE_AT_A_TIME, page="/health") as node:
            told = await order_of_answers(tmp_path / "told", node, priority=True)
            untold = await order_of_answers(tmp_path / "untold", node, priority=False)
        assert told == "first urgent usual usual usual"
        assert untold == "first usual usual usual urgent"

    in_loop(test, within=800)()
