"""One hostile case against a real sidecar, with a serving node that records every byte."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from enforcement.rules.policy import Unit
from tests.hostile.case import BODY, CLOSED, FOLLOWER, Case, post
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, Stack, agent, budget, split_answer, stack

TIMEOUT_S = 0.3  # of the sidecar, for what never comes
PATIENCE_S = 10.0
_IDS = re.compile(rb"x-request-id: [0-9a-f-]{36}\r\n")


class Recorder(FakeEngine):
    """A serving node that keeps whatever is sent to it."""

    def __init__(self) -> None:
        super().__init__(kind="vllm")
        self.received = bytearray()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Recorder"]:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Recording(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self._server.close()


class _Recording(asyncio.StreamReaderProtocol):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__(asyncio.StreamReader(), recorder._serve)
        self._recorder = recorder

    def data_received(self, data: bytes) -> None:
        self._recorder.received += data
        super().data_received(data)


@asynccontextmanager
async def guarded(spool_dir: Path) -> AsyncIterator[Stack]:
    """A sidecar with short patience, a hard budget, and a recording node that is asked nothing."""
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
    async with stack(
        spool_dir,
        engine=Recorder(),
        plane=plane,
        head_timeout=TIMEOUT_S,
        body_timeout=TIMEOUT_S,
        probe_interval=3_600.0,
    ) as world:
        yield world


async def problem_of(case: Case, world: Stack) -> str:
    """Send a case; what was wrong with its refusal, or nothing."""
    recorder = world.engine
    assert isinstance(recorder, Recorder)
    assert world.desk.view is not None
    for caller in world.desk.view.agents.values():
        caller.rates.large_after_ns = 0  # it does not wait for the case before
    before = len(recorder.received)
    raw = case.raw + FOLLOWER if case.ends and case.followed else case.raw
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await world.raw(raw)
    except TimeoutError:
        return "the connection stays open"
    if sent := bytes(recorder.received[before:]):
        return f"sent upstream: {sent[:200]!r}"
    return _problem_of_answer(case, answer)


def _problem_of_answer(case: Case, answer: bytes) -> str:
    if not answer:
        return "" if case.status == CLOSED else "closed without a word"
    status, headers, body = split_answer(answer)
    if status != case.status:
        return f"answered {status} for {case.status}: {body[:200]!r}"
    if answer.count(b"HTTP/1.1 ") != 1:
        return "what follows it was answered"
    if headers.get("connection") != "close":
        return "the answer does not say that the connection closes"
    return ""


async def leak_of(case: Case, world: Stack) -> str:
    """Send a request that is served; what of its trick the node saw, or nothing."""
    recorder = world.engine
    assert isinstance(recorder, Recorder)
    seen = []
    for raw in (post(b"Connection: close"), case.raw):
        before = len(recorder.received)
        status, _, body = split_answer(await world.raw(raw))
        if status != case.status:
            return f"answered {status} for {case.status}: {body[:200]!r}"
        seen.append(_IDS.sub(b"", bytes(recorder.received[before:])))
    plain, tricky = seen
    return "" if tricky == plain else f"the node sees {tricky!r} for {plain!r}"


async def proper_call_is_served(world: Stack) -> bool:
    """Whether the same sidecar still serves, and the recorder still records."""
    recorder = world.engine
    assert isinstance(recorder, Recorder)
    before = len(recorder.received)
    status, _, _ = await world.post(BODY)
    return status == 200 and b'"content":"hello"' in recorder.received[before:]
