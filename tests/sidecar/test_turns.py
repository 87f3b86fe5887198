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
    turns, done = Turns(), list[str]()

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


async def leave_unread(world: Stack, request: bytes) -> None:
    """Begin a stream, read nothing of it until nothing moves any more, and go."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", world.port))
        await loop.sock_sendall(client, request)
        async with asyncio.timeout(20):
            made = -1
            while made != world.engine.output_tokens or made < 1_000:
                made = world.engine.output_tokens
                await asyncio.sleep(0.3)


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
    body = json.dumps(chat(max_tokens=TOKENS, stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        await asyncio.gather(*(leave_unread(world, head.encode() + body) for _ in range(READERS)))
        await world.quiet()
    assert max(pieces) <= SLICE_BYTES
    assert sum(pieces) > 10 * SLICE_BYTES
    charged = [event.output_tokens for event in plane.events.values()]
    assert {event.outcome for event in plane.events.values()} == {Outcome.CLIENT_GONE}
    unseen = sum(charged) - engine.output_tokens
    assert 0 <= unseen <= READERS * ABORT_TOKENS[Engine.VLLM]
    assert (plane.balance(cap.id).held, len(charged)) == (0, READERS)
