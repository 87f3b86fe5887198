"""Charge booked calls to the budgets that no lease pays.

What an event paid from leases is settled by the reports of those leases. Every other budget that it
matches is charged here, in the window in which the call started. What a hard limit has no room for
is `overrun`: never refused, never hidden.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any
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
        lines.add(entry)
    uses, ends = lines.found()
    budgets = {budget.id: budget for budget in compiled.budgets.values()}
    balances = open_balances(budgets=budgets, windows=ends, now=now)
    _post(organization_id, uses, balances, now=now)


class _Use(Struct, gc=False):
    """What a batch adds to one balance: calls and how much each used, and loose parts of others."""

    calls: list[Entry] = []
    amounts: list[int] = []
    loose: list[Charge] = []

    def apart(self) -> list[Charge]:
        """A charge for each."""
        both = zip(self.calls, self.amounts, strict=True)
        used = [Charge(call.event.id, amount, False, call.started_at) for call, amount in both]
        return used + self.loose

    def together(self) -> list[Charge]:
        """The calls as one, and what no lease could pay apart."""
        if len(self.calls) < 2:
            return self.apart()
        reason = f"{len(self.calls)} calls"
        one = Charge(None, sum(self.amounts), False, self.calls[0].started_at, reason)
        return [one, *self.loose]


class _Line:
    """What a batch adds to a budget and value, whichever window it belongs to."""

    __slots__ = ("_calls", "_loose", "policy", "take", "value")

    def __init__(self, policy: BudgetPolicy, value: str) -> None:
        self.policy, self.value = policy, value
        self._calls: list[Entry] = []
        self._loose: list[Charge] = []
        self.take = self._calls.append

    def take_loose(self, entry: Entry) -> None:
        """What a call used of a budget that it held leases of, and that none of them could pay."""
        parts = [part for part in entry.event.parts if not part.lease]
        amount = sum(part.amount for part in parts if part.budget == self.policy.id)
        if amount:
            self._loose.append(Charge(entry.event.id, amount, True, entry.started_at))

    def uses(self) -> dict[Window, _Use]:
        """By the window in which each call started; what used nothing opens none."""
        calls, amounts = self._calls, self._amounts()
        if 0 in amounts:
            calls = [call for call, amount in zip(calls, amounts, strict=True) if amount]
            amounts = [amount for amount in amounts if amount]
        found: dict[Window, _Use] = {}
        windows = self._windows([call.started_at for call in calls])
        if len(set(windows)) == 1:  # nearly always
            found[windows[0]] = _Use(calls, amounts)
        else:
            for window, call, amount in zip(windows, calls, amounts, strict=True):
                use = found.setdefault(window, _Use())
                use.calls.append(call)
                use.amounts.append(amount)
        for charge in self._loose:
            found.setdefault(self._windows([charge.at])[0], _Use()).loose.append(charge)
        return found

    def _amounts(self) -> list[int]:
        unit = self.policy.unit
        if unit is Unit.USD:  # nearly every budget's: no need to know what else a call used
            return [call.event.charge_nanos for call in self._calls]
        return [uses_of(call.event)[unit] for call in self._calls]

    def _windows(self, instants: list[datetime]) -> list[Window]:
        """The window of each instant: mostly that of the one before."""
        if not instants:
            return []
        start, end = window = window_at(self.policy.window, instants[0])
        if start <= min(instants) and (end is None or max(instants) < end):
            return [window] * len(instants)
        found = []
        for at in instants:
            if at < start or (end is not None and at >= end):
                start, end = window = window_at(self.policy.window, at)
            found.append(window)
        return found


class _Lines:
    """The lines of a batch: calls of a kind are many, and match the same budgets."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._lines: dict[tuple[str, str], _Line] = {}
        self._by_facts: dict[tuple[Any, ...], list[Callable[[Entry], None]]] = {}

    def add(self, entry: Entry) -> None:
        """Add a call to the lines that it is charged to."""
        event = entry.event
        parts = tuple([(part.budget, not part.lease) for part in event.parts])
        facts = (parts, *_facts(event), *event.tags, *event.tags.values())
        takers = self._by_facts.get(facts)
        if takers is None:
            takers = self._by_facts[facts] = self._takers(entry)
        for take in takers:
            take(entry)

    def _takers(self, entry: Entry) -> list[Callable[[Entry], None]]:
        event = entry.event
        paid = {part.budget for part in event.parts}
        loose = {part.budget for part in event.parts if not part.lease}
        subject = _subject(entry.owner, event.agent, event)
        lines = [
            self._line(policy, value_of(policy.per, subject))
            for policy in self._matcher.plan(subject).budgets
        ]
        unpaid = [line.take for line in lines if line.policy.id not in paid]
        return unpaid + [line.take_loose for line in lines if line.policy.id in loose]

    def _line(self, policy: BudgetPolicy, value: str) -> _Line:
        return self._lines.setdefault((policy.id, value), _Line(policy, value))

    def found(self) -> tuple[dict[BalanceKey, _Use], dict[BalanceKey, datetime | None]]:
        """What each balance gets, and when its window ends."""
        uses, ends = {}, {}
        for line in self._lines.values():
            for (start, end), use in line.uses().items():
                key = BalanceKey(UUID(line.policy.id), line.value, start)
                uses[key], ends[key] = use, end
        return uses, ends


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


def _post(
    organization_id: UUID,
    uses: Mapping[BalanceKey, _Use],
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
    for key, use in uses.items():
        balance = balances[key]
        rolling = balance.ring is not None
        for charge in use.apart() if balance.hard or rolling else use.together():
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


def room_for(balance: Balance, amount: int, *, spent: int = 0) -> int:
    """How much of a charge becomes spent beside `spent`; the rest is overrun."""
    if not balance.hard:
        return amount
    return max(0, min(amount, balance.limit_amount - balance.committed_amount - spent))
