"""How far a budget is used: what its current balances say, as the pages show it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import F, Q
from django.urls import reverse

from budgets.enums import WindowKind
from budgets.models import Balance, Budget
from budgets.queries import BudgetRow, current_balances
from controlplane.dashboard.formats import permille
from enforcement.rules.policy import Mode, Per, Unit
from enforcement.rules.windows import window_at

NEAR_PERMILLE = 800
FULL_PERMILLE = 990  # what is left is less than a call needs
LIFETIME_LABEL = "lifetime"
_HELD = F("held_amount") + F("suspense_amount") + F("given_amount")
_COMMITTED = F("spent_amount") + F("overrun_amount") + _HELD


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """One balance of a budget, or a budget's empty window."""

    budget: Budget
    window_start: datetime
    window_end: datetime | None
    limit: int
    spent: int = 0
    held: int = 0
    suspense: int = 0
    overrun: int = 0
    value: str = ""
    value_label: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """An id for the page: the same row keeps it when it is fetched again."""
        return f"{self.budget.id}-{self.value}" if self.value else str(self.budget.id)

    @property
    def budget_id(self) -> UUID:
        return self.budget.id

    @property
    def name(self) -> str:
        return self.budget.name

    @property
    def unit(self) -> str:
        return self.budget.unit

    @property
    def mode(self) -> str:
        return self.budget.mode

    @property
    def state(self) -> str:
        return "archived" if self.budget.archived_at else self.budget.state

    @property
    def url(self) -> str:
        return reverse("enforcement:budget", args=[self.budget.id])

    @property
    def window_label(self) -> str:
        return window_label(self.budget)

    @property
    def used(self) -> int:
        """What is gone for good: overrun was spent too, and suspense may have been."""
        return self.spent + self.overrun

    @property
    def committed(self) -> int:
        return self.spent + self.held + self.suspense + self.overrun

    @property
    def free(self) -> int:
        return max(0, self.limit - self.committed)

    @property
    def level(self) -> str:
        share = permille(self.committed, self.limit)
        if share >= FULL_PERMILLE:
            return "full"
        return "near" if share >= NEAR_PERMILLE else "calm"

    @property
    def share(self) -> int:
        """Thousandths of the limit, not cut at the limit: overspent budgets come first."""
        return self.committed * 1000 // self.limit


def window_label(budget: Budget) -> str:
    """`each month from day 15`, `lifetime`, `the last 24 hours`, `until 2027-01-01 00:00 UTC`."""
    match budget.window_kind:
        case WindowKind.LIFETIME:
            return LIFETIME_LABEL
        case WindowKind.ROLLING:
            return f"the last {length_text(budget.rolling_s or 0)}"
        case WindowKind.UNTIL:
            return f"until {budget.ends_at:%Y-%m-%d %H:%M} UTC"
    label = f"each {budget.period}"
    if budget.anchor_month != 1:
        label += f" from month {budget.anchor_month}"
    return label if budget.anchor_day == 1 else f"{label} from day {budget.anchor_day}"


def length_text(length_s: int) -> str:
    """Whole days, hours or minutes, where they fit."""
    for unit_s, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if length_s >= 2 * unit_s and length_s % unit_s == 0:
            return f"{length_s // unit_s} {name}"
    return f"{length_s} seconds"


def exposure_of(budget: Budget, balance: Balance | None, *, now: datetime) -> Exposure:
    """The exposure of a balance; without one, of the untouched current window."""
    if balance is None:
        start, end = window_at(budget.window, now)
        return Exposure(
            budget=budget, window_start=start, window_end=end, limit=budget.effective_limit
        )
    return Exposure(
        budget=budget,
        window_start=balance.window_start,
        window_end=balance.window_end,
        limit=balance.limit_amount,
        spent=balance.spent_amount,
        held=balance.held_amount + balance.given_amount,
        suspense=balance.suspense_amount,
        overrun=balance.overrun_amount,
        value=balance.value,
    )


def exposure_of_row(row: BudgetRow, *, now: datetime) -> Exposure:
    """The exposure of what `budgets.queries` found."""
    return exposure_of(row.budget, row.balance, now=now)


def balances_of(budget: Budget, *, now: datetime, most: int) -> tuple[list[Exposure], int]:
    """The fullest balances of a split budget in the current window, and how many there are."""
    rows = current_balances(budget.organization, now=now).filter(budget=budget)
    shown = rows.annotate(committed=_COMMITTED * Decimal(1) / F("limit_amount"))
    fullest = shown.order_by("-committed", "id")[:most]
    return [exposure_of(budget, row, now=now) for row in fullest], rows.count()


def exposures_for_agent(
    budgets: Sequence[Budget], *, agent_id: UUID, now: datetime
) -> list[Exposure]:
    """For each budget the balance that this agent pays from: one query.

    Of a budget for each session the fullest is shown if all its sessions are this agent's.
    """
    if not budgets:
        return []
    rows = current_balances(budgets[0].organization, now=now).filter(
        Q(budget__per=Per.SESSION, budget__scope_id=agent_id)
        | Q(budget__per=Per.AGENT, value=str(agent_id))
        | Q(budget__per=Per.NONE),
        budget__in=[budget.id for budget in budgets],
    )
    fullest: dict[UUID, Exposure] = {}
    by_id = {budget.id: budget for budget in budgets}
    for row in rows:
        exposure = exposure_of(by_id[row.budget_id], row, now=now)
        known = fullest.get(row.budget_id)
        if known is None or exposure.share > known.share:
            fullest[row.budget_id] = exposure
    return [fullest.get(budget.id) or exposure_of(budget, None, now=now) for budget in budgets]


def nearest_cap(exposures: Iterable[Exposure]) -> Exposure | None:
    """The hard budget that leaves an agent least: in dollars where one counts dollars, else by
    share. A budget for each session stops a session, not the agent.
    """
    hard = [row for row in exposures if row.mode == Mode.HARD and row.budget.per != Per.SESSION]
    dollars = [row for row in hard if row.unit == Unit.USD]
    if dollars:
        return min(dollars, key=lambda row: (row.free, row.name))
    return max(hard, key=lambda row: row.share, default=None)
