"""Which balances a recorded call was charged to, in the unit of their budgets.

1. What it paid from leases: the balances of those leases, whatever its facts match today.
2. Every other budget that it matched when it was booked, or that was made later in the same window
   and found its use already there (`earlier`). What names a budget's calls never changes.
3. A split value that has no balance of its own shares that of the others (L15).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from budgets.domain.balances import (
    BalanceKey,
    Windows,
    find_balances,
    new_balance,
    open_balances,
)
from budgets.domain.charging import subject_of
from budgets.enums import WindowKind
from budgets.models import Balance, Budget, Lease, UsageEvent
from enforcement.rules.matching import Matcher, value_of
from enforcement.rules.policy import Unit
from enforcement.rules.splits import OTHER_VALUE
from enforcement.rules.windows import window_at


class Place(NamedTuple):
    """A balance that a call is charged to, and the instant that its charge counts at."""

    balance_id: UUID
    at: datetime


class Charged:
    """Finds the places of calls. Reads budgets once; the balances of each batch of calls."""

    def __init__(self, organization_id: UUID, *, unit: Unit, now: datetime, write: bool) -> None:
        """`write`: balances that are missing are made; else they are in `planned`, by id."""
        rows = Budget.objects.filter(organization_id=organization_id, unit=unit.value)
        self._budgets = {str(row.id): row for row in rows}
        self._matcher = Matcher([row.to_policy() for row in self._budgets.values()])
        self._organization_id = organization_id
        self._now = now
        self._write = write
        self.planned: dict[UUID, Balance] = {}
        self._planned: dict[BalanceKey, UUID] = {}

    def places(
        self, events: Sequence[UsageEvent], *, growing: Collection[UUID]
    ) -> dict[UUID, list[Place]]:
        """For each event the balances that it was charged to, each once.

        `growing`: events that cost more now. A call that cost nothing has opened no balance.
        """
        leases = self._leases(events)
        keys = {event.id: list(self._keys(event, leases)) for event in events}
        wanted = {
            key: event.id in growing
            for event in sorted(events, key=lambda one: one.id in growing)
            for key in keys[event.id]
            if isinstance(key, BalanceKey)
        }
        rows = self._balances(wanted)
        return {
            event.id: list(dict.fromkeys(_places(event, keys[event.id], rows))) for event in events
        }

    def _balances(self, wanted: Mapping[BalanceKey, bool]) -> dict[BalanceKey, UUID]:
        """The balance of each key; one that is missing is made if the key says so."""
        others = {key._replace(value=OTHER_VALUE) for key in wanted if key.value}
        rows = self._planned | {
            BalanceKey(row.budget_id, row.value, row.window_start): row.id
            for row in find_balances(wanted.keys() | others)
        }
        found = {key: row for key in wanted if (row := rows.get(key) or rows.get(_shared(key)))}
        missing = {
            key: window_at(self._budgets[str(key.budget_id)].window, key.window_start)[1]
            for key, needed in wanted.items()
            if needed and key not in found
        }
        return found | (self._made(missing) if self._write else self._plan(missing))

    def _made(self, missing: Windows) -> dict[BalanceKey, UUID]:
        budgets = {row.id: row for row in self._budgets.values()}
        made = open_balances(budgets=budgets, windows=missing, now=self._now)
        return {key: row.id for key, row in made.items()}

    def _plan(self, missing: Windows) -> dict[BalanceKey, UUID]:
        for key, end in missing.items():
            budget = self._budgets[str(key.budget_id)]
            row = new_balance(budget, key, end=end, now=self._now)
            self.planned[row.id] = row
            self._planned[key] = row.id
        return {key: self._planned[key] for key in missing}

    def _leases(self, events: Iterable[UsageEvent]) -> dict[str, Place]:
        """Where each lease of these events counts: a rolling one in its own sub-bucket."""
        ids = {part["lease"] for event in events for part in event.parts if part["lease"]}
        rows = Lease.objects.filter(
            organization_id=self._organization_id, id__in=[one for one in ids if _is_uuid(one)]
        )
        return {
            str(row.id): Place(row.balance_id, row.expires_at - timedelta(milliseconds=1))
            for row in rows
        }

    def _keys(self, event: UsageEvent, leases: dict[str, Place]) -> Iterable["BalanceKey | Place"]:
        paid: dict[tuple[str, str], list[dict[str, str | int]]] = defaultdict(list)
        for part in event.parts:
            if part["budget"] in self._budgets:
                paid[part["budget"], part["value"]].append(part)
        for (budget_id, value), parts in paid.items():
            held = [part for part in parts if part["lease"] in leases]
            if held:
                yield leases[str(max(held, key=lambda part: part["amount"])["lease"])]
            else:
                yield _key(self._budgets[budget_id], value, event)
        subject = subject_of(self._organization_id, event)
        held_budgets = {budget_id for budget_id, _ in paid}
        for policy in self._matcher.plan(subject).budgets:
            budget = self._budgets[policy.id]
            if policy.id not in held_budgets and _was_charged(budget, event):
                yield _key(budget, value_of(policy.per, subject), event)


def _key(budget: Budget, value: str, event: UsageEvent) -> BalanceKey:
    return BalanceKey(budget.id, value, window_at(budget.window, event.started_at)[0])


def _places(
    event: UsageEvent, keys: Iterable[BalanceKey | Place], rows: dict[BalanceKey, UUID]
) -> Iterable[Place]:
    for key in keys:
        if isinstance(key, Place):
            yield key
            continue
        if key in rows:
            yield Place(rows[key], event.started_at)


def _shared(key: BalanceKey) -> BalanceKey:
    return key._replace(value=OTHER_VALUE) if key.value else key


def _was_charged(budget: Budget, event: UsageEvent) -> bool:
    """Whether a budget counted a call that held nothing on it."""
    if budget.archived_at is not None and budget.archived_at <= event.received_at:
        return False
    if budget.created_at <= event.received_at:
        return True
    if budget.window_kind in (WindowKind.LIFETIME, WindowKind.UNTIL):
        return False
    return window_at(budget.window, budget.created_at)[0] <= event.started_at


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
