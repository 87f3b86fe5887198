"""Budgets with their fullest current balance."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, DecimalField, ExpressionWrapper, F, Q, QuerySet
from django.db.models.functions import Cast

from budgets.models import Balance, Budget
from controlplane.identity.models import Organization
from enforcement.rules.policy import Mode
from enforcement.rules.windows import window_at

NEAR_PERCENT = 80


@dataclass(frozen=True)
class BudgetRow:
    """A budget with its fullest balance of the current window; without one, nothing is used."""

    budget: Budget
    balance: Balance | None
    window_start: datetime
    window_end: datetime | None
    balances: int = 0

    @property
    def unit(self) -> str:
        return self.budget.unit

    @property
    def limit(self) -> int:
        return self.balance.limit_amount if self.balance else self.budget.effective_limit

    @property
    def used(self) -> int:
        """The truth: spent and overrun."""
        return self.balance.spent_amount + self.balance.overrun_amount if self.balance else 0

    @property
    def held(self) -> int:
        if self.balance is None:
            return 0
        out = self.balance.held_amount + self.balance.given_amount
        return out + self.balance.suspense_amount

    @property
    def suspense(self) -> int:
        return self.balance.suspense_amount if self.balance else 0

    @property
    def overrun(self) -> int:
        return self.balance.overrun_amount if self.balance else 0

    @property
    def committed(self) -> int:
        return self.used + self.held

    @property
    def free(self) -> int:
        return self.limit - self.committed

    @property
    def percent(self) -> int:
        """Committed in percent of the limit, rounded down."""
        return self.committed * 100 // self.limit

    @property
    def is_hard(self) -> bool:
        return self.budget.mode == Mode.HARD


@dataclass(frozen=True)
class Risk:
    """Hard budgets whose fullest balance is full, or nearly so."""

    hard: int
    full: int
    near: int

    @property
    def total(self) -> int:
        return self.full + self.near


def budget_rows(
    organization: Organization, *, now: datetime, archived: bool = False
) -> list[BudgetRow]:
    """Every budget with its fullest current balance, by name. Three queries."""
    budgets = Budget.objects.filter(
        organization=organization, archived_at__isnull=not archived
    ).order_by("name")
    current = current_balances(organization, now=now)
    counts = dict(current.values_list("budget_id").annotate(Count("id")).order_by())
    fullest = {
        balance.budget_id: balance
        for balance in current.annotate(fill=_fill())
        .order_by("budget_id", "-fill", "id")
        .distinct("budget_id")
    }
    return [
        _row(budget, fullest.get(budget.id), now=now, count=counts.get(budget.id, 0))
        for budget in budgets
    ]


def current_balances(organization: Organization, *, now: datetime) -> QuerySet[Balance]:
    """Balances whose window holds `now`, as a queryset."""
    return Balance.objects.filter(
        Q(window_end__isnull=True) | Q(window_end__gt=now),
        organization=organization,
        window_start__lte=now,
        closed_at__isnull=True,
    )


def fullest_first(balances: QuerySet[Balance]) -> QuerySet[Balance]:
    return balances.annotate(fill=_fill()).order_by("-fill", "id")


def _fill() -> "ExpressionWrapper[Any]":
    """How full a balance is, exactly; only to sort by."""
    held = F("held_amount") + F("suspense_amount") + F("given_amount")
    committed = F("spent_amount") + F("overrun_amount") + held
    exact = DecimalField(max_digits=60, decimal_places=20)
    return ExpressionWrapper(Cast(committed, exact) / Cast(F("limit_amount"), exact), exact)


def _row(budget: Budget, balance: Balance | None, *, now: datetime, count: int = 1) -> BudgetRow:
    if balance is not None:
        return BudgetRow(budget, balance, balance.window_start, balance.window_end, count)
    start, end = window_at(budget.window, now)
    return BudgetRow(budget, None, start, end, count)


def nearest(rows: Iterable[BudgetRow], *, count: int = 5) -> list[BudgetRow]:
    """The budgets that are fullest, fullest first."""
    used = [row for row in rows if row.balance is not None]
    return sorted(used, key=lambda row: (-(row.committed * 10_000 // row.limit), row.budget.name))[
        :count
    ]


def risk(rows: Iterable[BudgetRow]) -> Risk:
    hard = [row for row in rows if row.is_hard]
    full = sum(row.free <= 0 for row in hard)
    near = sum(row.free > 0 and row.percent >= NEAR_PERCENT for row in hard)
    return Risk(hard=len(hard), full=full, near=near)


def budget_row(budget: Budget, *, now: datetime) -> BudgetRow:
    """One budget with its fullest current balance."""
    current = current_balances(budget.organization, now=now).filter(budget=budget)
    fullest = fullest_first(current).first()
    return _row(budget, fullest, now=now, count=current.count())
