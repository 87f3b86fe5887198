"""One misdeed of a serving node: what its caller gets, what is booked, and who goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from enforcement.rules.policy import Unit
from enforcement.rules.wire import UsageEvent
from tests.hostile.case import BODY
from tests.hostile.cases.upstreams import MOST_TOKENS, Charge, Misdeed, Then
from tests.sidecar.engine import FakeEngine, Script, Writer
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, Stack, agent, budget, chat, stack

TIMEOUT_S = 0.3
_LIMITS: dict[str, Any] = {
    "upstream_head_timeout": TIMEOUT_S,
    "upstream_idle_timeout": TIMEOUT_S,
    "max_answer_bytes": 1_000_000,
}


def _script(misdeed: Misdeed) -> Script:
    async def answer(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
        for piece in misdeed.answer:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if misdeed.then is Then.CLOSE:
            raise ConnectionError
        if misdeed.then is Then.RESET:
            await asyncio.sleep(0.05)
            writer.transport.abort()
            raise ConnectionError

    return answer


@asynccontextmanager
async def suffering(spool_dir: Path) -> AsyncIterator[Stack]:
    """A sidecar with little patience before a node that will misbehave; its books are right."""
    engine = FakeEngine(kind="vllm")
    plane = Plane(agents=[agent()], budgets=[budget(1_000_000, Unit.TOKENS)], prices=[PRICE])
    async with stack(spool_dir, engine=engine, plane=plane, **_LIMITS) as world:
        yield world
        await world.quiet()
    balance = plane.balance("budget-tokens")
    found = (balance.spent, balance.held, balance.suspense, balance.overrun)
    assert found == (sum(plane.tokens), 0, 0, 0), balance


async def trouble_of(misdeed: Misdeed, world: Stack) -> str:
    """Let the node misbehave once; what was wrong with how the sidecar took it, or nothing."""
    session = token_hex(8)
    call = chat(max_tokens=MOST_TOKENS, stream=misdeed.streamed)
    world.engine.script = _script(misdeed)
    async with asyncio.timeout(20):
        status, _, body = await world.post(call, x_comptroller_session=session)
        event = await _event_of(session, world)
    world.engine.script = None
    if _charge(event) != misdeed.charge:
        return f"booked {_charge(event)} for {misdeed.charge}"
    return _trouble_of_answer(misdeed, status, body) or await _trouble_afterwards(world)


async def _event_of(session: str, world: Stack) -> UsageEvent:
    """What the control plane is told of a session."""
    while True:
        for event in world.plane.events.values():
            if event.session == session:
                return event
        await asyncio.sleep(0.01)


def _trouble_of_answer(misdeed: Misdeed, status: int, body: bytes) -> str:
    if b"nternal error" in body:
        return "an exception escaped"
    if status != misdeed.status:
        return f"answered {status} for {misdeed.status}: {body[:200]!r}"
    if not misdeed.ends:
        return ""
    if misdeed.ends not in body[-1_000:]:
        return f"the stream ends otherwise: {body[-300:]!r}"
    return "" if body.endswith(b"data: [DONE]\n\n") else f"no mark at the end: {body[-300:]!r}"


def _charge(event: UsageEvent) -> Charge:
    return Charge(event.output_tokens, event.presumed, event.estimated, event.input_tokens)


async def _trouble_afterwards(world: Stack) -> str:
    if world.service.desk.metrics.uncaught:
        return "an exception escaped"
    status, _, body = await world.post(BODY)
    return "" if status == 200 else f"the next call is answered {status}: {body[:200]!r}"
