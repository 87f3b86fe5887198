"""What Prometheus is told of an organization's budgets: the fullest balances of now, so many."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from budgets.models import Balance
from budgets.queries.rows import budget_rows, current_balances, fullest_first
from controlplane.identity.models import Organization
from enforcement.rules.policy import Unit

NANOS_PER_DOLLAR = 10**9
MOST_BALANCES = 1_000  # times seven gauges: what one scrape may cost


class Gauge(NamedTuple):
    """One balance, its amounts in dollars or in its budget's unit."""

    labels: dict[str, str]
    limit: float
    spent: float
    held: float
    suspense: float
    overrun: float
    resets_in_hours: float | None

    @property
    def remaining(self) -> float:
        return self.limit - self.spent - self.held - self.suspense - self.overrun


class Gauges(NamedTuple):
    """The gauges of an organization, and how many balances found no place among them."""

    rows: list[Gauge]
    left_out: int


def budget_gauges(
    organization: Organization, *, now: datetime, most: int = MOST_BALANCES
) -> Gauges:
    """Current balances, the fullest first, and budgets that nobody has used yet."""
    current = current_balances(organization, now=now)
    shown = list(fullest_first(current).select_related("budget")[:most])
    rows = [_of_balance(balance, now) for balance in shown]
    unused = list(_unused(organization, now))
    room = most - len(rows)
    return Gauges(rows + unused[:room], current.count() - len(shown) + max(0, len(unused) - room))


def _unused(organization: Organization, now: datetime) -> Iterator[Gauge]:
    for row in budget_rows(organization, now=now):
        if row.balance is None:
            scale = _scale(row.unit)
            labels = _labels(row.budget.name, row.budget.scope_kind, row.unit, row.budget.mode, "")
            ends = _hours(row.window_end, now)
            yield Gauge(labels, row.limit / scale, 0.0, 0.0, 0.0, 0.0, ends)


def _of_balance(balance: Balance, now: datetime) -> Gauge:
    budget = balance.budget
    scale = _scale(budget.unit)
    return Gauge(
        _labels(budget.name, budget.scope_kind, budget.unit, budget.mode, balance.value),
        balance.limit_amount / scale,
        balance.spent_amount / scale,
        (balance.held_amount + balance.given_amount) / scale,
        balance.suspense_amount / scale,
        balance.overrun_amount / scale,
        _hours(balance.window_end, now),
    )


def _labels(name: str, scope: str, unit: str, mode: str, value: str) -> dict[str, str]:
    return {"budget": name, "scope": scope, "unit": unit, "mode": mode, "value": value}


def _scale(unit: str) -> int:
    return NANOS_PER_DOLLAR if unit == Unit.USD else 1


def _hours(end: datetime | None, now: datetime) -> float | None:
    return None if end is None else (end - now).total_seconds() / 3600
