"""What a client must do well, one function for each: it arranges, calls, asserts, and says what
was seen in a few words for the table.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from enforcement.rules.policy import (
    AgentState,
    BudgetPolicy,
    HoldMode,
    OrderKind,
    PricePolicy,
    Rates,
    Unit,
)
from enforcement.rules.wire import Outcome
from enforcement.sidecar import clock
from tests.clients.client import NOTES, TOOL, Ask, Seen
from tests.clients.node import Node
from tests.clients.programs import Client
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import AGENT, KEY, Stack, agent, budget, stack

RATES = Rates(input=1_000_000, cached_input=1_000_000, output=4_000_000)
PRICE = PricePolicy(id="price", model="", match="prefix", rates=RATES)
AGENT_REASONS = ("is exhausted", "max_output_tokens")
PLENTY = 10**12
NATURAL_LENGTH = 12
CUT_TOKENS = 150  # of output: a slice and a margin fit, a long answer does not
REQUESTS_PER_MINUTE = 30
LIMIT_REASONS = ("length", "max_tokens", "incomplete", "max_output_tokens")


class Arena:
    """Where clients are tried: a sidecar in front of the scripted node, or of a real engine."""

    def __init__(self, home: Path, *, real: FakeEngine | None = None) -> None:
        self._home = home
        self._real = real
        self._count = itertools.count()

    @asynccontextmanager
    async def world(
        self,
        *budgets: BudgetPolicy,
        delay: float = 0.0,
        long: bool = False,
        calls_tools: bool = False,
        settings: dict[str, Any] | None = None,
        **of_agent: Any,
    ) -> AsyncIterator[Stack]:
        """`long`: answers do not end by themselves, where the node is scripted."""
        plane = Plane(agents=[agent(**of_agent)], budgets=list(budgets), prices=[PRICE])
        engine = self._real
        if engine is None:
            length = 1_000_000 if long else NATURAL_LENGTH
            engine = Node(delay=delay, natural_length=length, calls_tools=calls_tools)
        spool = self._home / f"spool-{next(self._count)}"
        more = {"context_window": None} | (settings or {})
        async with stack(spool, engine=engine, plane=plane, **more) as world:
            yield world

    def ask(self, world: Stack, kind: str, *, max_tokens: int = 20) -> Ask:
        (node,) = world.service.desk.router.upstreams
        return Ask(world.url, KEY, node.models[0], kind, max_tokens)


def books_agree(world: Stack, seen: Seen) -> None:
    """What the client counts is what is booked."""
    assert not seen.error, f"{seen.error}: {seen.message}"
    booked = world.plane.tokens
    for told, true in zip((seen.input_tokens, seen.output_tokens), booked, strict=True):
        assert told in (true, None), f"the client says {told}, booked is {true}"
    assert not any(event.presumed for event in world.plane.events.values())


async def whole(client: Client, arena: Arena) -> str:
    """A whole answer, charged by the engine's usage."""
    async with arena.world(budget(PLENTY)) as world:
        seen = await client.call(arena.ask(world, "whole"))
        await world.quiet()
    books_agree(world, seen)
    assert seen.text
    return f"{seen.output_tokens or world.plane.tokens[1]} tokens, `{seen.finish}`"


async def stream(client: Client, arena: Arena) -> str:
    """A stream, charged by the engine's usage."""
    async with arena.world(budget(PLENTY)) as world:
        seen = await client.call(arena.ask(world, "stream"))
        await world.quiet()
    books_agree(world, seen)
    assert seen.text
    return f"{seen.output_tokens or world.plane.tokens[1]} tokens, `{seen.finish}`"


async def tools(client: Client, arena: Arena) -> str:
    """A tool is offered, and called."""
    async with arena.world(budget(PLENTY, Unit.TOOL_CALLS), calls_tools=True) as world:
        seen = await client.call(arena.ask(world, "tools"))
        await world.quiet()
    assert not seen.error, f"{seen.error}: {seen.message}"
    assert world.plane.balance("budget-tool_calls").spent == 1
    if not client.agent:
        assert seen.tools == [TOOL]
        return f"`{TOOL}` called"
    engine = world.engine
    assert isinstance(engine, Node)
    assert NOTES in engine.results[-1]
    return f"`{engine.call['name']}` run"


async def _refused(client: Client, world: Stack, ask: Ask, *, reason: str, status: int) -> str:
    refusals = world.service.desk.metrics.refusals
    before, made = refusals[reason], world.engine.output_tokens
    seen = await client.call(ask)
    attempts = refusals[reason] - before
    assert seen.error, f"it saw no error but {seen.text!r}"
    assert seen.status in (status, None), f"{seen.status} {seen.message}"
    assert 1 <= attempts <= client.most_attempts, f"{attempts} attempts; {refusals}"
    assert world.engine.output_tokens == made
    return f"`{seen.error}`, {attempts} attempt{'s' * (attempts > 1)}"


async def spent(client: Client, arena: Arena) -> str:
    """402: the budget is spent; the client says so at once and does not try again."""
    async with arena.world(budget(1)) as world:
        kind = "stream" if client.agent else "whole"
        return await _refused(
            client, world, arena.ask(world, kind), reason="budget_exhausted", status=402
        )


async def paused(client: Client, arena: Arena) -> str:
    """403: the agent is paused."""
    async with arena.world(budget(PLENTY), state=AgentState.PAUSED) as world:
        return await _refused(
            client, world, arena.ask(world, "stream"), reason="agent_paused", status=403
        )


async def throttled(client: Client, arena: Arena) -> str:
    """429 with Retry-After: the client waits for as long as it is told, and gets its answer."""
    settings = {"grant_timeout": 0.1}
    async with arena.world(settings=settings, requests_per_minute=REQUESTS_PER_MINUTE) as world:
        ask = arena.ask(world, "stream" if client.agent else "whole")
        wait_s = 8 if client.agent else 2  # an agent takes its time to start, each time
        if not client.agent:
            await client.call(ask)
        _use_up_rate(world, wait_s)
        started = time.monotonic()
        seen = await client.call(ask)
        took_s = time.monotonic() - started
        retries = world.service.desk.metrics.refusals["requests_per_minute"]
    assert not seen.error, f"{seen.error}: {seen.message}"
    assert seen.text
    assert 1 <= retries <= 3, f"{retries} refusals"
    assert took_s >= wait_s - 1
    return f"answered after {retries} × 429"


def _use_up_rate(world: Stack, wait_s: int) -> None:
    """As if the whole minute's requests had just been made: the next may come after `wait_s`."""
    view = world.service.desk.view
    assert view is not None
    ahead_s = 60 - 60 // REQUESTS_PER_MINUTE + wait_s
    view.agents[AGENT].rates.requests_tat_ns = clock.now_ns() + ahead_s * 1_000_000_000


async def cut(client: Client, arena: Arena) -> str:
    """A metered budget ends in the middle of a stream: a proper end, and a reason."""
    cap = budget(CUT_TOKENS, Unit.OUTPUT_TOKENS, hold_mode=HoldMode.METERED)
    async with arena.world(cap, delay=0.002, long=True) as world:
        seen = await client.call(arena.ask(world, "stream", max_tokens=900))
        await world.quiet()
    events = list(world.plane.events.values())
    outcomes = [event.outcome for event in events]
    assert Outcome.CUT in outcomes, outcomes
    balance = world.plane.balance("budget-output_tokens")
    assert (balance.overrun, balance.spent <= CUT_TOKENS) == (0, True)
    if client.agent:  # Claude Code asks the model to go on, and that call is refused
        assert any(word in seen.message for word in AGENT_REASONS), seen
        refused = world.service.desk.metrics.refusals["budget_exhausted"]
        assert refused <= client.most_attempts, f"{refused} refusals"
        return f"`{seen.error}`: {seen.message[:80]}"
    assert len(events) == 1
    assert not seen.error, f"{seen.error}: {seen.message}"
    assert seen.text
    assert seen.finish in LIMIT_REASONS, seen.finish
    assert seen.note.get("reason") == ("budget_exhausted" if client.shows_note else None)
    return f"`{seen.finish}`{_why(seen)}"


async def killed(client: Client, arena: Arena) -> str:
    """An operator kills the agent in the middle of a stream; its next call is refused."""
    async with arena.world(budget(PLENTY), delay=0.02, long=True) as world:
        ask = arena.ask(world, "stream", max_tokens=900)
        running = asyncio.create_task(client.call(ask))
        async with asyncio.timeout(60):
            while not any(live.produced > 3 for live in world.service.desk.live):
                await asyncio.sleep(0.01)
        world.plane.order(OrderKind.KILL, AGENT)
        ordered = time.monotonic()
        seen = await running
        took_s = time.monotonic() - ordered
        await world.quiet()
        outcomes = [event.outcome for event in world.plane.events.values()]
        again = await _refused(client, world, ask, reason="agent_killed", status=403)
    assert seen.text or seen.error
    assert outcomes == [Outcome.KILLED], outcomes
    assert took_s < 10
    assert not client.shows_note or seen.note["reason"] == "agent_killed"
    return f"`{seen.finish or seen.error}`{_why(seen)}; then {again}"


def _why(seen: Seen) -> str:
    """Whether the client shows the note that says why."""
    reason = seen.note.get("reason", "")
    return f", reason `{reason}`" if reason else ""


Behaviour = Callable[[Client, Arena], Awaitable[str]]
BEHAVIOURS: dict[str, Behaviour] = {
    "whole answer": whole,
    "stream": stream,
    "tool call": tools,
    "402 spent": spent,
    "403 paused": paused,
    "429, retried": throttled,
    "cut": cut,
    "kill": killed,
}
