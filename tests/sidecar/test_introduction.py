"""How the control plane learns of nodes: only a Hello names them."""

import asyncio
from pathlib import Path

from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, agent, in_loop, stack


class SlowPlane(Plane):
    """Takes its time to welcome."""

    async def _dispatch(self, name: str, body: bytes) -> tuple[int, bytes]:
        answer = await super()._dispatch(name, body)
        if name == "hello":
            await asyncio.sleep(0.5)
        return answer


@in_loop
async def test_a_node_that_changes_while_a_hello_is_under_way_is_introduced_again(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(kind="plain")
    plane = SlowPlane(agents=[agent()], prices=[PRICE])

    async def become_known() -> None:
        while not plane.hellos:
            await asyncio.sleep(0.01)
        engine.kind = "llamacpp"

    changing = asyncio.create_task(become_known())
    async with stack(tmp_path, engine=engine, plane=plane, probe_interval=0.05):
        while len(plane.hellos) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
    await changing
    engines = [hello.upstreams[0].engine for hello in plane.hellos]
    paths = [hello.upstreams[0].metrics_path for hello in plane.hellos]
    assert engines == ["unknown", "llama.cpp"]
    assert paths == ["", "/metrics"]
