"""Hard budgets that are younger than a running call: held, settled there, or the stream is cut."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from enforcement.rules.policy import HoldMode, Mode, Unit
from enforcement.rules.spools import Spool
from enforcement.rules.wire import Outcome, Sync, SyncAnswer
from enforcement.sidecar.journal import Journal
from enforcement.sidecar.spooling import kernel_boot_id, revive
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import (
    PRICE,
    Stack,
    agent,
    budget,
    chat,
    events_of,
    in_loop,
    stack,
)

Answer = tuple[int, dict[str, str], bytes]


def slow_engine(kind: str = "vllm", *, tokens: int = 60) -> FakeEngine:
    engine = FakeEngine(kind=kind, delay=0.01)
    engine.natural_length = tokens
    return engine


async def start(world: Stack, **fields: object) -> asyncio.Task[Answer]:
    """A stream that has begun to flow."""
    body = chat(max_tokens=200, stream=True) | fields
    running = asyncio.create_task(world.post(body, x_comptroller_session="run-1"))
    async with asyncio.timeout(5):
        while world.engine.output_tokens < 5:
            await asyncio.sleep(0.005)
    return running


async def held(world: Stack, budget_id: str, amount: int, value: str = "") -> None:
    """Wait until running calls hold exactly so much of a balance here."""
    lots = world.service.desk.book.lots
    async with asyncio.timeout(5):
        while sum(lot.open for lot in lots.by_balance.get((budget_id, value), ())) != amount:
            await asyncio.sleep(0.005)


async def in_force(world: Stack) -> None:
    async with asyncio.timeout(5):
        while world.service.desk.book.policy_revision != world.plane.policy.revision:
            await asyncio.sleep(0.005)


def nothing_is_open(world: Stack) -> bool:
    desk = world.service.desk
    lots = desk.book.lots
    return not (
        lots.holds
        or desk.waiting
        or desk.book.pending
        or any(lot.open for lot in lots.by_lease.values())
    )


def parts_of(plane: Plane) -> dict[str, int]:
    """What the only event paid from each budget."""
    (event,) = plane.events.values()
    assert all(part.lease for part in event.parts)
    paid: dict[str, int] = {}
    for part in event.parts:
        paid[part.budget] = paid.get(part.budget, 0) + part.amount
    return paid


@in_loop
async def test_a_running_stream_is_held_and_settled_under_a_new_budget(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], prices=[PRICE])
    async with stack(tmp_path, engine=slow_engine(), plane=plane) as world:
        running = await start(world)
        plane.change_policy(
            budgets=[
                budget(10_000),
                budget(10_000, Unit.TOKENS, per="session"),
                budget(5, Unit.REQUESTS),
            ]
        )
        await held(world, "budget-usd", PROMPT_TOKENS + 2 * 200)
        await held(world, "budget-tokens", PROMPT_TOKENS + 200, "run-1")
        await held(world, "budget-requests", 1)
        status, _, body = await running
        await world.quiet()
        assert nothing_is_open(world)
    assert status == 200
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert plane.balance("budget-usd").spent == PROMPT_TOKENS + 2 * 60
    assert plane.balance("budget-tokens", "run-1").spent == PROMPT_TOKENS + 60
    assert plane.balance("budget-requests").spent == 1
    assert parts_of(plane) == {
        "budget-usd": PROMPT_TOKENS + 2 * 60,
        "budget-tokens": PROMPT_TOKENS + 60,
        "budget-requests": 1,
    }


@in_loop
async def test_an_older_hold_stays_beside_the_new_one(tmp_path: Path) -> None:
    first = budget(10_000, Unit.TOKENS, id="first")
    second = budget(10_000, Unit.TOKENS, id="second", mode=Mode.SOFT)
    plane = Plane(agents=[agent()], budgets=[first, second])
    async with stack(tmp_path, engine=slow_engine("llamacpp"), plane=plane) as world:
        running = await start(world)
        hard = budget(10_000, Unit.TOKENS, id="second")
        plane.change_policy(budgets=[hard])  # turned hard; the first one is gone
        await held(world, "second", PROMPT_TOKENS + 200)
        await held(world, "first", PROMPT_TOKENS + 200)
        plane.change_policy(budgets=[first, second])  # and all the way back
        await in_force(world)
        plane.change_policy(budgets=[first, hard])
        await in_force(world)
        await held(world, "second", PROMPT_TOKENS + 200)
        await running
        await world.quiet()
        assert nothing_is_open(world)
    used = PROMPT_TOKENS + 60
    assert parts_of(plane) == {"first": used, "second": used}
    assert (plane.balance("first").spent, plane.balance("second").spent) == (used, used)


@in_loop
async def test_a_new_budget_too_small_cuts_the_stream_with_its_name(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(tokens=190), plane=plane) as world:
        running = await start(world)
        roomy = budget(10_000, Unit.TOKENS, id="roomy", name="roomy")
        small = budget(PROMPT_TOKENS + 199, Unit.TOKENS, id="small", name="too small")
        plane.change_policy(budgets=[roomy, small])
        status, _, body = await running
        await world.quiet()
        assert nothing_is_open(world)
    assert status == 200
    last = events_of(body)[-1]
    assert last["choices"][0]["finish_reason"] == "length"
    note = last["comptroller"]
    assert (note["outcome"], note["reason"], note["budget"], note["budget_id"]) == (
        "cut",
        "budget_exhausted",
        "too small",
        "small",
    )
    assert world.engine.output_tokens < 100
    (event,) = plane.events.values()
    assert (event.outcome, event.stopped_by, event.parts) == (Outcome.CUT, "small", [])
    assert (plane.balance("roomy").spent, plane.balance("small").spent) == (0, 0)


@in_loop
async def test_a_stream_that_has_not_begun_is_refused_by_the_new_budget(tmp_path: Path) -> None:
    async def silent(engine: FakeEngine, body: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)
        writer.close()

    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=FakeEngine(script=silent), plane=plane) as world:
        running = asyncio.create_task(world.post(chat(max_tokens=200, stream=True)))
        await asyncio.sleep(0.1)
        plane.change_policy(budgets=[budget(999, Unit.TOKENS)])  # the window is 1000
        status, headers, body = await running
    error = json.loads(body)["error"]
    assert (status, headers["x-should-retry"]) == (402, "false")
    assert (error["code"], error["budget"], error["limit"]) == (
        "budget_exhausted",
        "cap in tokens",
        999,
    )


@in_loop
async def test_a_soft_budget_changes_nothing(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(), plane=plane) as world:
        running = await start(world)
        plane.change_policy(budgets=[budget(1, Unit.TOKENS, mode=Mode.SOFT)])
        await in_force(world)
        assert not world.service.desk.waiting
        _, _, body = await running
        await world.quiet()
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert plane.ledger.balances == {}
    assert parts_of(plane) == {}


@in_loop
async def test_a_whole_answer_ends_by_itself_and_names_no_budget(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", delay=0.4)
    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=engine, plane=plane) as world:
        running = asyncio.create_task(world.post(chat(max_tokens=20)))
        await asyncio.sleep(0.1)
        plane.change_policy(budgets=[budget(10, Unit.TOKENS)])
        status, _, _ = await running
        await world.quiet()
        assert nothing_is_open(world)
    assert status == 200
    assert plane.balance("budget-tokens").spent == 0
    assert parts_of(plane) == {}  # the control plane books it from the event


class SlowPlane(Plane):
    """Grants nothing before the gate is open."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.gate = asyncio.Event()
        self.asked = 0

    async def _grant(self, sync: Sync, spool: Spool, answer: SyncAnswer) -> None:
        if sync.groups:
            self.asked += 1
            await self.gate.wait()
        await super()._grant(sync, spool, answer)

    async def was_asked(self, times: int = 1) -> None:
        async with asyncio.timeout(5):
            while self.asked < times:
                await asyncio.sleep(0.005)


@in_loop
async def test_a_call_that_ends_while_it_asks_holds_nothing(tmp_path: Path) -> None:
    plane = SlowPlane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(tokens=30), plane=plane) as world:
        running = await start(world)
        plane.change_policy(budgets=[budget(300, Unit.TOKENS)])
        await plane.was_asked()
        _, _, body = await running
        assert nothing_is_open(world)
        plane.gate.set()
        async with asyncio.timeout(5):
            while not plane.ledger.leases or plane.balance("budget-tokens").held:
                await asyncio.sleep(0.01)
        await world.quiet()
        assert nothing_is_open(world)
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert parts_of(plane) == {}
    balance = plane.balance("budget-tokens")
    assert (balance.spent, balance.suspense, balance.overrun) == (0, 0, 0)


@in_loop
async def test_of_several_quick_policies_the_last_one_counts(tmp_path: Path) -> None:
    plane = SlowPlane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(tokens=100), plane=plane) as world:
        running = await start(world)
        plane.change_policy(budgets=[budget(10, Unit.TOKENS, id="one")])  # would cut
        await plane.was_asked()
        plane.change_policy(budgets=[budget(10_000, Unit.TOKENS, id="two")])
        await plane.was_asked(2)
        plane.change_policy(
            budgets=[
                budget(10_000, Unit.TOKENS, id="two"),
                budget(10_000, Unit.TOKENS, id="three"),
            ]
        )
        await in_force(world)
        plane.gate.set()
        await held(world, "three", PROMPT_TOKENS + 200)
        await held(world, "two", PROMPT_TOKENS + 200)
        _, _, body = await running
        await world.quiet()
        assert nothing_is_open(world)
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "stop"
    used = PROMPT_TOKENS + 100
    assert parts_of(plane) == {"two": used, "three": used}
    assert (plane.balance("two").spent, plane.balance("three").spent) == (used, used)


@in_loop
async def test_what_others_hold_cuts_a_stream_when_its_time_is_up(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    engine = slow_engine(tokens=190)
    async with stack(tmp_path, engine=engine, plane=plane, grant_timeout=0.4) as world:
        running = [await start(world) for _ in range(2)]
        plane.change_policy(budgets=[budget(300, Unit.TOKENS)])  # pays for one of them
        answers = [await task for task in running]
        await world.quiet()
        assert nothing_is_open(world)
    ends = sorted((events_of(body)[-1] for _, _, body in answers), key=lambda e: "comptroller" in e)
    assert ends[0]["choices"][0]["finish_reason"] == "stop"
    note = ends[1]["comptroller"]
    assert (note["reason"], note["budget"]) == ("budget_held", "cap in tokens")
    assert plane.balance("budget-tokens").spent == PROMPT_TOKENS + 190
    assert plane.balance("budget-tokens").overrun == 0


@in_loop
async def test_a_new_metered_budget_is_extended_from_what_was_made(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(tokens=180), plane=plane) as world:
        running = await start(world, max_tokens=900)
        metered = budget(10_000, Unit.TOKENS, hold_mode=HoldMode.METERED)
        plane.change_policy(budgets=[metered])
        lots = world.service.desk.book.lots
        async with asyncio.timeout(5):
            while not lots.holds or not any(lot.open for lot in lots.by_lease.values()):
                await asyncio.sleep(0.001)
        first = sum(lot.open for lot in lots.by_lease.values())
        _, _, body = await running
        await world.quiet()
        assert nothing_is_open(world)
    assert PROMPT_TOKENS + 128 < first < PROMPT_TOKENS + 180
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert plane.balance("budget-tokens").spent == PROMPT_TOKENS + 180
    assert parts_of(plane) == {"budget-tokens": PROMPT_TOKENS + 180}


@in_loop
async def test_a_new_metered_budget_cuts_within_its_cap(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(tokens=900), plane=plane) as world:
        running = await start(world, max_tokens=900)
        metered = budget(220, Unit.TOKENS, hold_mode=HoldMode.METERED)
        plane.change_policy(budgets=[metered])
        _, _, body = await running
        await world.quiet()
        assert nothing_is_open(world)
    assert events_of(body)[-1]["comptroller"]["budget"] == "cap in tokens"
    balance = plane.balance("budget-tokens")
    assert (balance.overrun, balance.held) == (0, 0)
    made = PROMPT_TOKENS + world.engine.output_tokens
    assert made <= balance.spent <= 220
    assert parts_of(plane) == {"budget-tokens": balance.spent}


@in_loop
async def test_an_unpriced_stream_is_cut_by_a_new_dollar_budget(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(tokens=190), plane=plane) as world:
        running = await start(world)
        plane.change_policy(budgets=[budget(10_000)])
        _, _, body = await running
        await world.quiet()
        assert nothing_is_open(world)
    note = events_of(body)[-1]["comptroller"]
    assert (note["reason"], note["budget"]) == ("unpriced_model", "cap in usd")


@in_loop
async def test_a_price_that_comes_with_the_budget_is_taken_up(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    async with stack(tmp_path, engine=slow_engine(), plane=plane) as world:
        running = await start(world)
        plane.change_policy(budgets=[budget(10_000)], prices=[PRICE])
        await held(world, "budget-usd", PROMPT_TOKENS + 2 * 200)
        await running
        await world.quiet()
    (event,) = plane.events.values()
    assert (event.charge_nanos, event.price_version) == (PROMPT_TOKENS + 2 * 60, "price-1")
    assert plane.balance("budget-usd").spent == event.charge_nanos


@in_loop
async def test_a_call_that_waits_for_its_hold_follows_the_new_policy(tmp_path: Path) -> None:
    plane = SlowPlane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS, id="one")])
    async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
        waiting = asyncio.create_task(world.post(chat(max_tokens=20)))
        await plane.was_asked()
        assert world.engine.calls == 0
        plane.change_policy(budgets=[budget(10_000, Unit.TOKENS, id="two")])
        await in_force(world)
        plane.gate.set()
        status, _, _ = await waiting
        await world.quiet()
        assert nothing_is_open(world)
    assert status == 200
    assert parts_of(plane) == {"two": PROMPT_TOKENS + 20}
    assert plane.balance("two").spent == PROMPT_TOKENS + 20


@in_loop
async def test_a_waiting_call_is_measured_when_a_budget_needs_its_size(tmp_path: Path) -> None:
    plane = SlowPlane(agents=[agent()], budgets=[budget(10, Unit.REQUESTS)], prices=[PRICE])
    async with stack(tmp_path, engine=FakeEngine(kind="llamacpp"), plane=plane) as world:
        waiting = asyncio.create_task(world.post(chat(max_tokens=20)))
        await plane.was_asked()
        small = budget(PROMPT_TOKENS + 20, Unit.TOKENS)  # too small for the context window
        plane.change_policy(budgets=[budget(10, Unit.REQUESTS), small])
        await in_force(world)
        plane.gate.set()
        status, _, body = await waiting
        await world.quiet()
    assert (status, "comptroller" in json.loads(body)) == (200, False)
    assert parts_of(plane) == {"budget-requests": 1, "budget-tokens": PROMPT_TOKENS + 20}


@in_loop
async def test_without_an_answer_a_stream_ends_with_the_policy_lease(tmp_path: Path) -> None:
    plane = SlowPlane(agents=[agent()], policy_ttl_ms=1_000)
    engine = slow_engine(tokens=900)
    async with stack(tmp_path, engine=engine, plane=plane, grant_timeout=0.2) as world:
        running = await start(world, max_tokens=900)
        plane.change_policy(budgets=[budget(10_000, Unit.TOKENS)])
        await plane.was_asked()
        plane.up = False
        began = asyncio.get_running_loop().time()
        _, _, body = await running
        took = asyncio.get_running_loop().time() - began
        plane.up = True
        plane.gate.set()
        await world.quiet()
        assert nothing_is_open(world)
    note = events_of(body)[-1]["comptroller"]
    assert (note["reason"], note["budget"]) == ("no_lease", "cap in tokens")
    assert 0.5 < took < 3.0  # not at the grant timeout: until then nobody relies on the budget


@in_loop
async def test_a_crash_after_adoption_books_what_was_held(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    async with stack(tmp_path / "spool", engine=slow_engine(), plane=plane) as world:
        running = await start(world)
        plane.change_policy(budgets=[budget(10_000, Unit.TOKENS)])
        await held(world, "budget-tokens", PROMPT_TOKENS + 200)
        copy = tmp_path / "copy"  # what a kill -9 would leave on the disk now
        shutil.copytree(tmp_path / "spool", copy)
        await running
    journal = Journal(copy, quota_bytes=10**7, segment_bytes=10**6)
    found = revive(journal, journal.open(), name="after", boot_id=kernel_boot_id())
    journal.close()
    (event,) = found.unsent
    assert (event.presumed, event.output_tokens) == (True, 200)
    assert [(part.budget, part.amount) for part in event.parts] == [
        ("budget-tokens", PROMPT_TOKENS + 200)
    ]
