"""What takes long takes turns: the backlog of streams whose clients did not read."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from enforcement.rules.policy import Unit
from enforcement.rules.wire import Outcome
from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from enforcement.sidecar.relay import Relay, State
from enforcement.sidecar.turns import Turns
from enforcement.sidecar.upstream import SLICE_BYTES
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import KEY, PRICE, Stack, agent, budget, chat, in_loop, stack

READERS = 3
TOKENS = 20_000


@in_loop
async def test_one_piece_of_all_work_is_done_in_a_turn_of_the_loop() -> None:
    turns, done = Turns(turn_ns=0), list[str]()

    def work(name: str, pieces: int) -> None:
        left = iter(range(pieces - 1, -1, -1))

        def piece() -> bool:
            done.append(name)
            return next(left) > 0

        turns.add(piece)

    work("a", 3)
    work("b", 1)
    work("c", 2)
    seen = []
    for _ in range(7):
        seen.append("".join(done))
        await asyncio.sleep(0)
    assert seen == ["", "a", "ab", "abc", "abca", "abcac", "abcaca"]


@in_loop
async def test_work_that_is_paced_leaves_time_between_its_pieces() -> None:
    turns, done = Turns(turn_ns=0, pace_s=0.05), list[float]()
    loop = asyncio.get_running_loop()
    began = loop.time()

    def piece() -> bool:
        done.append(loop.time() - began)
        return len(done) < 3

    turns.add(piece)
    async with asyncio.timeout(10):
        while len(done) < 3:
            await asyncio.sleep(0.01)
    assert [took >= 0.045 * turn for turn, took in enumerate(done, start=1)] == [True] * 3


@in_loop
async def test_small_pieces_share_a_turn() -> None:
    turns, done = Turns(turn_ns=10**12), list[int]()
    for n in range(5):
        turns.add(lambda n=n: bool(done.append(n)))  # type: ignore[misc]
    await asyncio.sleep(0)
    assert done == [0, 1, 2, 3, 4]


@in_loop
async def test_work_that_fails_holds_up_nobody() -> None:
    turns, done, failures = Turns(), list[str](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, said: failures.append(said))

    def fail() -> bool:
        raise ValueError

    turns.add(fail)
    turns.add(lambda: bool(done.append("b")))
    for _ in range(3):
        await asyncio.sleep(0)
    assert (done, len(failures)) == (["b"], 1)


def request() -> bytes:
    body = json.dumps(chat(max_tokens=TOKENS, stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += "Content-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def unread_stream(world: Stack) -> socket.socket:
    """Begin a stream, and read nothing of it until nothing moves any more."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", world.port))
    await loop.sock_sendall(client, request())
    async with asyncio.timeout(20):
        made = -1
        while made != world.engine.output_tokens or made < 1_000:
            made = world.engine.output_tokens
            await asyncio.sleep(0.3)
    return client


@in_loop
async def test_who_reads_after_pauses_gets_all_of_it_in_order(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", context=2 * TOKENS)
    plane = Plane(agents=[agent()], prices=[PRICE], budgets=[budget(10**6, Unit.TOKENS)])
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        client = await unread_stream(world)
        loop, answer, read = asyncio.get_running_loop(), bytearray(), 0
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        while piece := await loop.sock_recv(client, 1 << 18):
            answer += piece
            if len(answer) > read + 500_000:
                read = len(answer)
                await asyncio.sleep(0.05)
        client.close()
        await world.quiet()
    assert engine.output_tokens == answer.count(b'"word "') == TOKENS
    assert b"data: [DONE]" in answer[-100:]
    (event,) = plane.events.values()
    assert (event.outcome, event.output_tokens) == (Outcome.COMPLETED, TOKENS)


@in_loop
async def test_what_unread_streams_still_say_is_counted_in_small_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    on_body = Relay.on_body

    def noting(relay: Relay, data: bytes) -> None:
        if relay._state == State.DRAINING:
            pieces.append(len(data))
        on_body(relay, data)

    monkeypatch.setattr(Relay, "on_body", noting)
    cap = budget(10**6, Unit.TOKENS)
    engine = FakeEngine(kind="vllm", context=2 * TOKENS)
    plane = Plane(agents=[agent()], prices=[PRICE], budgets=[cap])
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        for client in await asyncio.gather(*(unread_stream(world) for _ in range(READERS))):
            client.close()
        await world.quiet()
    assert max(pieces) <= SLICE_BYTES
    assert sum(pieces) > 10 * SLICE_BYTES
    charged = [event.output_tokens for event in plane.events.values()]
    assert {event.outcome for event in plane.events.values()} == {Outcome.CLIENT_GONE}
    unseen = sum(charged) - engine.output_tokens
    assert 0 <= unseen <= READERS * ABORT_TOKENS[Engine.VLLM]
    assert (plane.balance(cap.id).held, len(charged)) == (0, READERS)
