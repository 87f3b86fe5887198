"""Large bodies that are refused make their agent's next ones wait, and nobody else's."""

import asyncio
import json
from pathlib import Path

import pytest

from enforcement.rules.policy import AgentPolicy
from enforcement.sidecar import clock, policy, routes
from enforcement.sidecar.front import HttpClient
from tests.sidecar.plane import Plane, key_policy
from tests.sidecar.stack import AGENT, KEY, PRICE, Stack, agent, budget, chat, in_loop, stack

OTHER = "cmp_live_agent2_secret"
DENSE = b'{"model":' + b"[" * 300_000
LARGE = json.dumps(chat(max_tokens=1)).encode() + b" " * 70_000


def plane() -> Plane:
    other = AgentPolicy(id="agent-2", slug="other", keys=[key_policy(OTHER)])
    return Plane(agents=[agent(), other], prices=[PRICE])


@pytest.fixture(autouse=True)
def _longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that no slow machine is through with it."""
    monkeypatch.setattr(policy, "LARGE_REST", 50_000)


async def post(world: Stack, body: bytes, key: str = KEY) -> tuple[int, str, str]:
    status, headers, answer = await world.post(body, authorization=f"Bearer {key}")
    error = json.loads(answer).get("error", {})
    return status, error.get("reason") or error.get("code") or "", headers.get("retry-after", "")


LARGE_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer " + KEY.encode() + b"\r\ncontent-length: 8000000\r\n\r\n"
)


async def begun(world: Stack, have: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which so many bytes of a large body have been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(LARGE_HEAD + b" " * have)
    await writer.drain()
    return reader, writer


@in_loop
async def test_the_next_large_body_of_the_agent_waits(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        assert (await post(world, LARGE))[0] == 200
        assert (await post(world, DENSE))[:2] == (400, "too_many_values")
        status, reason, after = await post(world, LARGE)
        assert (status, reason, int(after) >= 1) == (429, "large_body_too_soon", True)
        assert len(world.engine.heads) == 1
        assert (await post(world, LARGE, OTHER))[0] == 200, "another agent's"
        assert (await post(world, json.dumps(chat(max_tokens=1)).encode()))[0] == 200, "a small one"
        assert world.desk.view is not None
        world.desk.view.agents[AGENT].rates.large_after_ns = 0
        assert (await post(world, LARGE))[0] == 200


@in_loop
async def test_those_on_their_way_are_not_looked_at(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        found = await asyncio.gather(*(post(world, DENSE) for _ in range(20)))
    judged = [one for one in found if one[0] == 400]
    assert len(judged) < 20
    assert {one[1] for one in found if one[0] == 429} == {"large_body_too_soon"}


@in_loop
async def test_what_is_left_of_one_on_its_way_is_not_read(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        reader, writer = await begun(world, 5_000_000)
        assert (await post(world, DENSE))[:2] == (400, "too_many_values")
        writer.write(b"a")
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 429 ")


@in_loop
async def test_what_was_received_in_vain_counts(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        _, writer = await begun(world, 5_000_000)
        assert (await post(world, LARGE))[0] == 200, "it may still come"
        writer.close()
        async with asyncio.timeout(10):
            while (await post(world, LARGE))[1] != "large_body_too_soon":
                await asyncio.sleep(0.01)
        assert (await post(world, LARGE, OTHER))[0] == 200


@in_loop
async def test_who_sends_all_before_reading_still_reads_why_not(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        assert (await post(world, DENSE))[:2] == (400, "too_many_values")
        reader, writer = await begun(world, 0)
        writer.transport.set_write_buffer_limits(high=0)  # until the kernel has taken all of it
        for _ in range(8):
            writer.write(b" " * 1_000_000)
            await asyncio.wait_for(writer.drain(), 10)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"large_body_too_soon" in answer


@in_loop
async def test_receiving_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LARGE_REST", 1)
    monkeypatch.setattr(routes, "RECEIVING_NS_PER_BYTE", 10_000)
    async with stack(tmp_path, plane=plane()) as world:
        assert (await post(world, DENSE))[0] == 400
        assert world.desk.view is not None
        rest_ns = world.desk.view.agents[AGENT].rates.large_after_ns - clock.now_ns()
    assert 2 * 10**9 < rest_ns < 4 * 10**9


class Paused(asyncio.Transport):
    """A socket that is read or not."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


@in_loop
async def test_pieces_of_large_bodies_come_one_in_a_turn_of_the_loop(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        sockets = [Paused(), Paused()]
        connections = [HttpClient(world.service._front) for _ in sockets]
        for connection, socket in zip(connections, sockets, strict=True):
            connection.connection_made(socket)
            connection.data_received(LARGE_HEAD + b" " * 70_000)
        seen = []
        for _ in range(3):
            seen.append([socket.reads for socket in sockets])
            await asyncio.sleep(0)
        for connection in connections:
            connection.connection_lost(None)
    assert seen == [[False, False], [True, False], [True, True]]


@in_loop
async def test_a_body_of_megabytes_arrives_whole(tmp_path: Path) -> None:
    words = [{"role": "user", "content": "so " * 2_000_000}]
    async with stack(tmp_path, plane=plane()) as world:
        both = await asyncio.gather(
            *(post(world, json.dumps(chat(max_tokens=1, messages=words)).encode()) for _ in "ab")
        )
        assert [status for status, _, _ in both] == [200, 200]
        assert [body["messages"] for body in world.engine.requests] == [words, words]


@in_loop
async def test_a_body_of_too_many_chunks_counts(tmp_path: Path) -> None:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer " + KEY.encode() + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    async with stack(tmp_path, plane=plane()) as world:
        answer = await world.raw(head + b"1\r\na\r\n" * 600)
        assert b"too many chunks" in answer
        assert (await post(world, LARGE))[:2] == (429, "large_body_too_soon")


@in_loop
async def test_a_large_call_that_no_budget_pays_counts(tmp_path: Path) -> None:
    broke = Plane(agents=[agent()], budgets=[budget(1)], prices=[PRICE])
    async with stack(tmp_path, plane=broke) as world:
        assert (await post(world, LARGE))[0] == 402
        assert (await post(world, LARGE))[:2] == (429, "large_body_too_soon")


def test_no_agent_waits_for_ever() -> None:
    rates = policy.RateState()
    for _ in range(1_000):
        rates.refused_large(10_000_000, now_ns=7)
    assert rates.large_after_ns == 7 + policy.LONGEST_REST_NS
