"""Charge booked calls to the budgets that no lease pays.

What an event paid from leases is settled by the reports of those leases. Every other budget that it
matches is charged here, in the window in which the call started. What a hard limit has no room for
is `overrun`: never refused, never hidden.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from django.db.models import Q
from msgspec import Struct

from budgets.domain.balances import BalanceKey, add_amounts, open_balances
from budgets.domain.matchers import compiled_budgets
from budgets.domain.rings import RING_FIELDS, count
from budgets.domain.usagerows import Entry, Owner, owner_of
from budgets.models import Balance, Transfer, UsageEvent
from enforcement.rules import wire
from enforcement.rules.estimate import Used, amounts_used
from enforcement.rules.ledger import TransferKind
from enforcement.rules.matching import Matcher, Subject, value_of
from enforcement.rules.money import TokenUsage
from enforcement.rules.policy import BudgetPolicy, Unit
from enforcement.rules.windows import Window, window_at
from enforcement.rules.wire import Outcome

MAX_SPLIT_CHARS = 200  # of a balance's value
IDLE_FAILURE = Q(
    outcome=Outcome.UPSTREAM_FAILED.value, input_tokens=0, output_tokens=0, presumed=False
)
_facts = attrgetter("agent", "session", "user", "model", "provider", "node", "skill")

Call = UsageEvent | wire.UsageEvent  # as booked, or as it is told


class Charge(Struct, frozen=True, gc=False):
    """What an event adds to a balance that it holds no lease of."""

    event_id: str | None
    amount: int
    unheld: bool  # the call held on this balance, and used more than any lease could pay
    at: datetime
    reason: str = ""


def uses_of(event: Call) -> dict[Unit, int]:
    """What a call used in every unit. One that never reached a model is no request."""
    failed = event.outcome == Outcome.UPSTREAM_FAILED and not event.presumed
    requests = 0 if failed and not event.input_tokens + event.output_tokens else 1
    used = Used(event.charge_nanos, requests, event.gpu_ms, event.tool_calls)
    return amounts_used(tokens_of(event), used)


def tokens_of(event: Call) -> TokenUsage:
    """The tokens of a recorded call, as the rules of prices and units read them."""
    return TokenUsage(
        input_tokens=event.input_tokens,
        cached_input_tokens=event.cached_input_tokens,
        cache_write_tokens=event.cache_write_tokens,
        output_tokens=event.output_tokens,
        reasoning_tokens=event.reasoning_tokens,
        cache_write_long_tokens=event.cache_write_long_tokens,
        input_audio_tokens=event.input_audio_tokens,
        input_image_tokens=event.input_image_tokens,
        output_audio_tokens=event.output_audio_tokens,
        tier=event.service_tier,
    )


def charge(organization_id: UUID, entries: Sequence[Entry], *, now: datetime) -> None:
    """Charge new events to the balances that no lease of theirs pays. In their transaction."""
    compiled = compiled_budgets(organization_id)
    lines = _Lines(compiled.matcher)
    for entry in entries:
        event = entry.event
        paid = {part.budget for part in event.parts}
        for line in lines.of(entry):
            policy = line.policy
            unheld = policy.id in paid
            amount = _loose(event, policy) if unheld else _used(event, policy.unit)
            if amount:
                at = entry.started_at
                line.charges(at).append(Charge(event.id, amount, unheld, at))
    charges, ends = lines.found()
    budgets = {budget.id: budget for budget in compiled.budgets.values()}
    balances = open_balances(budgets=budgets, windows=ends, now=now)
    _post(organization_id, charges, balances, now=now)


def _used(event: wire.UsageEvent, unit: Unit) -> int:
    # Nearly every budget counts dollars: no need to know what else a call used.
    return event.charge_nanos if unit is Unit.USD else uses_of(event)[unit]


class _Line:
    """What a batch adds to a budget and value, by window: mostly that of the call before."""

    __slots__ = ("_charges", "_end", "_start", "policy", "value", "windows")

    def __init__(self, policy: BudgetPolicy, value: str) -> None:
        self.policy, self.value = policy, value
        self.windows: dict[Window, list[Charge]] = {}
        self._start: datetime | None = None
        self._end: datetime | None = None
        self._charges: list[Charge] = []

    def charges(self, at: datetime) -> list[Charge]:
        """The charges of the window in which a call started."""
        start, end = self._start, self._end
        if start is None or at < start or (end is not None and at >= end):
            window = window_at(self.policy.window, at)
            self._start, self._end = window
            self._charges = self.windows.setdefault(window, [])
        return self._charges


class _Lines:
    """The lines of a batch: calls of a kind are many, and match the same budgets."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._lines: dict[tuple[str, str], _Line] = {}
        self._by_facts: dict[tuple[str, ...], list[_Line]] = {}

    def of(self, entry: Entry) -> list[_Line]:
        """The lines that a call is charged to."""
        event = entry.event
        facts = (*_facts(event), *event.tags, *event.tags.values())
        known = self._by_facts.get(facts)
        if known is None:
            subject = _subject(entry.owner, event.agent, event)
            matching = self._matcher.plan(subject).budgets
            known = [self._line(policy, value_of(policy.per, subject)) for policy in matching]
            self._by_facts[facts] = known
        return known

    def _line(self, policy: BudgetPolicy, value: str) -> _Line:
        return self._lines.setdefault((policy.id, value), _Line(policy, value))

    def found(self) -> tuple[dict[BalanceKey, list[Charge]], dict[BalanceKey, datetime | None]]:
        """The charges of each balance, and when its window ends."""
        charges, ends = {}, {}
        for line in self._lines.values():
            for (start, end), found in line.windows.items():
                key = BalanceKey(UUID(line.policy.id), line.value, start)
                charges[key], ends[key] = found, end
        return charges, ends


def subject_of(organization_id: UUID, row: UsageEvent) -> Subject:
    """What a recorded call is attributed to, as budgets match it."""
    owner = owner_of(organization_id, row.team_id, row.project_id)
    return _subject(owner, str(row.agent_id), row)


def _subject(owner: Owner, agent: str, call: Call) -> Subject:
    return Subject(
        organization=owner.organization_id,
        agent=agent,
        team=owner.team_id,
        project=owner.project_id,
        session=call.session,
        user=call.user,
        model=call.model,
        provider=call.provider,
        node=call.node,
        skill=call.skill,
        tags={name: value[:MAX_SPLIT_CHARS] for name, value in call.tags.items()},
    )


def _loose(event: wire.UsageEvent, policy: BudgetPolicy) -> int:
    """What a call used of a budget that it held leases of, and that none of them could pay."""
    loose = [part for part in event.parts if not part.lease]
    return sum(part.amount for part in loose if part.budget == policy.id) if loose else 0


def _post(
    organization_id: UUID,
    charges: Mapping[BalanceKey, list[Charge]],
    balances: Mapping[BalanceKey, Balance],
    *,
    now: datetime,
) -> None:
    """Split every charge into what the limit has room for and overrun, and write both down.

    A hard balance gets a row for each event. A soft one gets one for the batch: its events stand
    beside it, and thousands of them a second must not become as many rows for every level above.
    """
    changes: dict[UUID, tuple[int, int]] = defaultdict(lambda: (0, 0))
    turned: dict[UUID, Balance] = {}
    transfers: list[Transfer] = []
    aged: list[Transfer] = []
    for key, items in charges.items():
        balance = balances[key]
        rolling = balance.ring is not None
        for charge in items if balance.hard or rolling else _together(items):
            spent, overrun = changes[balance.id]
            room = room_for(balance, charge.amount, spent=0 if rolling else spent)
            fits = 0 if charge.unheld else room
            over = charge.amount - fits
            if rolling:
                aged += count(balance, at=charge.at, now=now, spent=fits, overrun=over)
                turned[balance.id] = balance
            else:
                changes[balance.id] = (spent + fits, overrun + over)
            transfers += [
                Transfer(
                    organization_id=organization_id,
                    balance=balance,
                    usage_event_id=UUID(charge.event_id) if charge.event_id else None,
                    kind=kind.value,
                    amount=amount,
                    at=now,
                    reason=charge.reason,
                )
                for kind, amount in ((TransferKind.USAGE, fits), (TransferKind.OVERRUN, over))
                if amount
            ]
    add_amounts({place: change for place, change in changes.items() if any(change)}, now=now)
    Balance.objects.bulk_update(turned.values(), RING_FIELDS)
    Transfer.objects.bulk_create([*transfers, *aged])


def _together(charges: list[Charge]) -> list[Charge]:
    """Several charges of a soft balance as one, and overrun that no lease could pay apart."""
    held = [charge for charge in charges if not charge.unheld]
    if len(held) < 2:
        return charges
    total = sum(charge.amount for charge in held)
    one = Charge(None, total, False, held[0].at, reason=f"{len(held)} calls")
    return [one, *(charge for charge in charges if charge.unheld)]


def room_for(balance: Balance, amount: int, *, spent: int = 0) -> int:
    """How much of a charge becomes spent beside `spent`; the rest is overrun."""
    if not balance.hard:
        return amount
    return max(0, min(amount, balance.limit_amount - balance.committed_amount - spent))
