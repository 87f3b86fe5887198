"""Calls of the real model server, one after the other: what we metered of each beside what its
engine counted, to the token; and the row of reconciliation that comes of all of them.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from django.utils import timezone

from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from controlplane.demo.engine import Counters, read_counters
from controlplane.identity.ids import new_id
from enforcement.domain.gather import hour_of
from enforcement.domain.reconciliation import reconcile, reconciled
from enforcement.models import Reconciliation
from enforcement.rules.policy import BudgetPolicy, HoldMode, PricePolicy, Rates, Unit
from enforcement.rules.reconcile import Threshold
from enforcement.rules.wire import Outcome, UsageEvent
from tests.budgets.world import World, make_world
from tests.collectors.modelserver import model_server
from tests.enforcement.domain.nodes import make_node, read
from tests.sidecar.plane import Plane
from tests.sidecar.stack import KEY, Stack, agent, budget, in_loop, stack
from tests.sidecar.test_real_engine import RealEngine, chat

pytestmark = pytest.mark.model

slowly = partial(in_loop, within=300)
COMPLETED, GONE = 8, 6
CHUNKS_HEARD = (1, 2, 3, 5, 8, 13)  # before the client leaves


class Counted(NamedTuple):
    """One call, by both sides."""

    metered: UsageEvent
    produced: Counters

    @property
    def drift(self) -> tuple[int, int]:
        return (
            self.produced.input_tokens - self.metered.input_tokens,
            self.produced.output_tokens - self.metered.output_tokens,
        )


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="the extra 'demo' is not installed")
    with model_server() as url:
        yield url


def plane(cap: BudgetPolicy) -> Plane:
    rates = Rates(input=1_000_000, cached_input=1_000_000, output=4_000_000)
    price = PricePolicy(id="p", model="", match="prefix", rates=rates)
    return Plane(agents=[agent()], budgets=[cap], prices=[price])


async def counted(world: Stack, url: str, call: Callable[[], Awaitable[object]]) -> Counted:
    """Make one call, and wait for what both sides say of it."""
    before, known = read_counters(url), set(world.plane.events)
    await call()
    await world.quiet()
    await asyncio.sleep(0.5)
    (event,) = (event for key, event in world.plane.events.items() if key not in known)
    return Counted(event, read_counters(url).since(before))


async def leave_after(world: Stack, chunks: int) -> None:
    """A client that hangs up in the middle of its stream."""
    body = json.dumps(chat(world, stream=True, max_tokens=400)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {KEY}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    heard = 0
    while heard < chunks:
        line = await reader.readline()
        assert line, "the stream ended before the client left"
        heard += line.startswith(b"data:")
    writer.transport.abort()


def test_completed_calls_are_metered_exactly_and_reconcile_without_drift(
    tmp_path: Path, model: str, db: None
) -> None:
    found: list[Counted] = []

    @slowly
    async def calls() -> None:
        engine = RealEngine(model)
        async with stack(
            tmp_path, engine=engine, plane=plane(budget(10**9)), context_window=None
        ) as world:
            for number in range(COMPLETED):
                body = chat(world, max_tokens=5 + number, stream=number % 2 == 1)
                found.append(await counted(world, model, partial(world.post, body)))

    calls()
    assert [one.metered.outcome for one in found] == [Outcome.COMPLETED] * COMPLETED
    assert [one.drift for one in found] == [(0, 0)] * COMPLETED
    row = stored(found, borne_tokens=0)
    assert (row.verdict, row.cause, row.calls) == ("agrees", "", COMPLETED)
    assert row.produced_prompt_tokens == row.metered_prompt_tokens
    assert row.produced_generation_tokens == row.metered_generation_tokens == sum(range(5, 13))


def test_calls_whose_client_left_differ_by_a_token_at_most(
    tmp_path: Path, model: str, db: None
) -> None:
    found: list[Counted] = []

    @slowly
    async def calls() -> None:
        engine = RealEngine(model)
        async with stack(
            tmp_path, engine=engine, plane=plane(budget(10**9)), context_window=None
        ) as world:
            found.extend(
                [
                    await counted(world, model, partial(leave_after, world, chunks))
                    for chunks in CHUNKS_HEARD
                ]
            )

    calls()
    assert [one.metered.outcome for one in found] == [Outcome.CLIENT_GONE] * GONE
    assert [one.drift[0] for one in found] == [0] * GONE
    assert all(abs(one.drift[1]) <= 1 for one in found), [one.drift for one in found]
    assert stored(found, borne_tokens=GONE).verdict == "agrees"


def test_calls_that_are_cut_at_a_cap_differ_by_a_token_at_most(
    tmp_path: Path, model: str, db: None
) -> None:
    found: list[Counted] = []

    @slowly
    async def calls() -> None:
        for limit in (170, 190, 210):
            limited = plane(budget(limit, Unit.TOKENS, hold_mode=HoldMode.METERED))
            engine, folder = RealEngine(model), tmp_path / str(limit)
            folder.mkdir()
            async with stack(folder, engine=engine, plane=limited, context_window=None) as world:
                body = chat(world, max_tokens=900, stream=True)
                found.append(await counted(world, model, partial(world.post, body)))

    calls()
    assert [one.metered.outcome for one in found] == [Outcome.CUT] * 3
    assert [one.drift[0] for one in found] == [0] * 3
    assert all(abs(one.drift[1]) <= 1 for one in found), [one.drift for one in found]


def stored(found: list[Counted], *, borne_tokens: int) -> Reconciliation:
    """The row of their hour, of the events as they were reported and the counters as they were
    read: every five minutes, all of it made after the first reading.
    """
    world, now = make_world(), timezone.now()
    hour = hour_of(now)
    node = make_node(world, "llama", created_at=hour)
    prompt = sum(one.produced.input_tokens for one in found)
    made = sum(one.produced.output_tokens for one in found)
    for number in range(13):
        totals = {"prompt_tokens": prompt if number else 0, "cached_tokens": 0}
        at = hour + number * timedelta(minutes=5)
        read(node, made if number else 0, at=at, **totals)
    events = [_of_world(one.metered, world, int(hour.timestamp() * 1_000)) for one in found]
    book_usage(organization_id=world.id, sidecar_id=new_id(), events=events, now=now)
    fold_usage(now=now)
    window = {"since": hour, "until": hour + timedelta(hours=1)}
    later = hour + timedelta(hours=3)
    reconcile(organization_id=world.id, **window, now=later, by=Threshold(0, borne_tokens))
    (row,) = reconciled(organization_id=world.id, **window)
    return row


def _of_world(event: UsageEvent, world: World, started_at_ms: int) -> UsageEvent:
    """The same call, of an agent and in an hour that the ledger of this test knows."""
    return msgspec.structs.replace(
        event,
        id=str(new_id()),
        agent=str(world.agent.id),
        node="llama",
        parts=[],
        price_version="",
        started_at_ms=started_at_ms,
    )
