"""What a decision costs: finding the budgets of a call, holding on five balances, settling.

    python benchmarks/decision.py [--check] [--json FILE] [--calls 2000] [--rounds 9]

The sidecar's own rules in this process, without network or control plane; the journal's records
are made as they lie on disk, and not written. Microseconds of the processor's time for one call,
by the clock of this thread, so that a busy machine changes little; medians of the rounds, each of
which takes every step in turn.
"""

import gc
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from common import Result, arguments, conclude, median

from enforcement.rules import records
from enforcement.rules.dialects import CHAT
from enforcement.rules.estimate import Bound, Used, bound_of, needs_of, used_of
from enforcement.rules.lots import Hold, Lots, Need, Shortage
from enforcement.rules.matching import Matcher, Plan, Subject, subject_of
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.policy import AgentPolicy, BudgetPolicy, PricePolicy, Rates, ScopeKind, Unit
from enforcement.rules.spoolframes import RECORD, framed
from enforcement.rules.wire import Grant, Outcome, UsageEvent

BUDGETS = 1_000
DECISION_GOAL_US, MATCH_GOAL_US, CACHED_GOAL_US = 15, 20, 1
PLENTY = 10**15
ORGANIZATION, TEAM, MODEL = "organization-1", "team-1", "fast"
AGENT = AgentPolicy(id="0192f0e0-0000-7000-8000-0000000000aa", slug="agent", team=TEAM)
PRICE = PricePolicy(
    id="0192f0e0-0000-7000-8000-0000000000bb",
    model=MODEL,
    rates=Rates(input=10**9, cached_input=10**8, cache_write=10**9, output=4 * 10**9),
)
PROMPT = "lorem ipsum dolor sit amet " * 26
BODY = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 256},
    separators=(",", ":"),
).encode()
USAGE = TokenUsage(input_tokens=200, output_tokens=110)

# ---------------------------------------------------------------------------- the scene


def five() -> list[BudgetPolicy]:
    """What one call matches: organization and agent, in dollars, tokens and requests."""
    everybody = (ScopeKind.ORGANIZATION, ORGANIZATION)
    own = (ScopeKind.AGENT, AGENT.id)
    wanted = [
        (everybody, Unit.USD),
        (everybody, Unit.TOKENS),
        (own, Unit.USD),
        (own, Unit.TOKENS),
        (own, Unit.REQUESTS),
    ]
    return [_budget(n, scope, unit) for n, (scope, unit) in enumerate(wanted)]


def thousand() -> list[BudgetPolicy]:
    """The five among many that a call must be told apart from, by scope, pattern and prefix."""
    everybody, team = (ScopeKind.ORGANIZATION, ORGANIZATION), (ScopeKind.TEAM, TEAM)
    kinds: list[Callable[[int], dict[str, Any]]] = [
        lambda n: {"scope": everybody, "filters": {"model": [f"model-{n}"]}},
        lambda n: {"scope": everybody, "filters": {"model": [f"family-{n}-*"]}},
        lambda n: {"scope": team, "filters": {"user": [f"user-{n}"]}},
        lambda n: {"scope": team, "filters": {"tag:task": [f"task-{n}"], "model": ["fast*"]}},
        lambda n: {"scope": (ScopeKind.AGENT, f"agent-{n}"), "filters": {}},
    ]
    many = [_budget(n, unit=Unit.USD, **kinds[n % len(kinds)](n)) for n in range(5, BUDGETS)]
    return five() + many


def _budget(
    n: int, scope: tuple[ScopeKind, str], unit: Unit, filters: dict[str, list[str]] | None = None
) -> BudgetPolicy:
    return BudgetPolicy(
        id=f"0192f0e0-0000-7000-8000-{n:012}",
        name=f"budget {n}",
        scope_kind=scope[0],
        scope_id=scope[1],
        unit=unit,
        limit=PLENTY,
        filters=filters or {},
    )


def subject(user: str = "user-7") -> Subject:
    return subject_of(ORGANIZATION, AGENT, user=user, model=MODEL, tags={"task": "task-8"})


class Scene:
    """A book with a lease on each of the five balances, and a call that fits them."""

    def __init__(self) -> None:
        self.plan: Plan = Matcher(five()).plan(subject())
        self.balances = self.plan.balances(subject())
        self.lots = Lots()
        for n, (budget, value) in enumerate(self.balances):
            lease = f"0192f0e0-0000-7000-9000-{n:012}"
            grant = Grant(lease, "", budget, value, 0, PLENTY, 3_600_000, "mac")
            self.lots.add(grant, incarnation="1", asked_ns=0, now_ns=0, live=True)
            self.lots.mark_durable([lease])
        self.lots.journal_out.clear()
        self.bound: Bound = bound_of(prompt_tokens=200, context_window=None, output_limit=256)
        self.event = UsageEvent(
            id="0192f0e0-0000-7000-a000-000000000001",
            agent=AGENT.id,
            model=MODEL,
            started_at_ms=1_795_868_060_000,
            outcome=Outcome.COMPLETED,
            node="node",
            endpoint="chat",
            input_tokens=USAGE.input_tokens,
            output_tokens=USAGE.output_tokens,
            charge_nanos=charge_nanos(USAGE, PRICE),
            price_version=PRICE.id,
        )

    def needs(self) -> list[Need]:
        return needs_of(self.plan.budgets, self.balances, self.bound, price=PRICE)

    def held(self, needs: Iterable[Need]) -> Hold:
        found = self.lots.place(needs, now_ns=1, event=self.event)
        assert isinstance(found, Hold)
        return found

    def settle(self, hold: Hold) -> None:
        used = Used(charge_nanos(USAGE, PRICE))
        amounts = used_of(self.plan.budgets, self.balances, USAGE, used)
        self.lots.settle(hold, amounts, now_ns=2, event=self.event)

    def journaled(self) -> int:
        """The bytes that these records are on disk; none is left."""
        found = self.lots.journal_out
        size = sum(len(framed(n, RECORD, records.encode(r))) for n, r in enumerate(found))
        found.clear()
        return size


# ---------------------------------------------------------------------------- the steps


def cpu_us(calls: int, step: Callable[[int], object]) -> float:
    """Processor time of one call of a step."""
    began = time.thread_time_ns()
    for number in range(calls):
        step(number)
    return (time.thread_time_ns() - began) / calls / 1000


def one_round(scene: Scene, matcher: Matcher, calls: int, offset: int) -> dict[str, float]:
    """Every step, so many times."""
    quoted = scene.needs()
    holds: list[Hold] = []
    users = [subject(f"user-{offset + n}") for n in range(calls)]  # not seen before
    known = subject()
    short = [Need(need.budget, need.value, 2 * PLENTY) for need in quoted]
    found = {
        "match, facts not seen before": cpu_us(calls, lambda n: matcher.plan(users[n])),
        "match, cached": cpu_us(calls, lambda _: matcher.plan(known)),
        "parse": cpu_us(calls, lambda _: CHAT.parse(BODY)),
        "needs": cpu_us(calls, lambda _: scene.needs()),
        "hold": cpu_us(calls, lambda _: holds.append(scene.held(quoted))),
        "refuse": cpu_us(calls, lambda _: _refused(scene.lots, short)),
    }
    held_us = cpu_us(1, lambda _: scene.journaled()) / calls
    found["settle"] = cpu_us(calls, lambda n: scene.settle(holds[n]))
    settled_us = cpu_us(1, lambda _: scene.journaled()) / calls
    return found | {"hold record": held_us, "settle record": settled_us}


def _refused(lots: Lots, needs: list[Need]) -> None:
    assert isinstance(lots.place(needs, now_ns=1), Shortage)


WORDS = {
    "match, facts not seen before": f"match {BUDGETS:,} budgets, facts not seen before",
    "match, cached": f"match {BUDGETS:,} budgets, cached",
    "parse": "parse a body of 0.8 KB strictly",
    "needs": "what five balances must hold, size not seen before",
    "hold": "hold on five balances",
    "refuse": "find five balances too short",
    "hold record": "journal record of the hold",
    "settle": "charge, and settle five balances",
    "settle record": "journal record of the settlement",
}


def tabulate(rounds: list[dict[str, float]]) -> Result:
    cost = {name: median([found[name] for found in rounds]) for name in WORDS}
    result = Result("Decisions, µs of processor time for one", ["step", "µs"])
    result.rows += [(words, f"{cost[name]:.2f}") for name, words in WORDS.items()]
    decision = cost["match, cached"] + cost["needs"] + cost["hold"]
    result.rows.append(("a decision: match, needs, hold", f"{decision:.2f}"))
    for words, figure, most in (
        ("decision over five balances", decision, DECISION_GOAL_US),
        (f"match of {BUDGETS:,} budgets", cost["match, facts not seen before"], MATCH_GOAL_US),
        ("the same, cached", cost["match, cached"], CACHED_GOAL_US),
    ):
        result.goal(f"{words}: {figure:.2f} µs ≤ {most} µs", met=figure <= most)
    return result


def run(asked: Any) -> Result:
    scene, matcher = Scene(), Matcher(thousand())
    assert len(matcher.plan(subject("nobody")).budgets) == 6  # the five, and one by its tag
    one_round(scene, matcher, asked.calls, 0)  # warm
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as the sidecar runs
    offsets = [(1 + number) * asked.calls for number in range(asked.rounds)]
    return tabulate([one_round(scene, matcher, asked.calls, offset) for offset in offsets])


def main() -> None:
    asked = arguments(
        __doc__,
        calls=lambda p: p.add_argument("--calls", type=int, default=2_000),
        rounds=lambda p: p.add_argument("--rounds", type=int, default=9),
    )
    conclude([run(asked)], asked)


if __name__ == "__main__":
    main()
