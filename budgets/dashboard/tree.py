"""The tree of budgets: organization › team › project › agent › session, as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.urls import reverse

from budgets.dashboard.exposures import Exposure, exposure_of_row
from budgets.dashboard.places import ICONS, Places
from budgets.queries import ScopeNode
from enforcement.rules.policy import ScopeKind, Unit

SESSION = "session"


@dataclass(frozen=True)
class ScopeRow:
    """A level that has budgets, or one below it has; with the nearest dollar cap on its way up."""

    node: ScopeNode
    effective: Exposure | None
    is_scope: bool = True

    @property
    def key(self) -> str:
        return self.node.id

    @property
    def depth(self) -> int:
        return self.node.depth

    @property
    def kind(self) -> str:
        return self.node.kind

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def icon(self) -> str:
        return ICONS[ScopeKind(self.node.kind)]

    @property
    def url(self) -> str:
        """Where the level has a page of its own."""
        if self.node.kind != ScopeKind.AGENT:
            return ""
        return reverse("enforcement:agent", args=[self.node.id])


@dataclass(frozen=True)
class BudgetLine:
    """A budget of the level above it, or the balance of one of its sessions."""

    exposure: Exposure
    depth: int
    is_session: bool
    is_scope: bool = False


Row = ScopeRow | BudgetLine


def tree_rows(nodes: Sequence[ScopeNode], places: Places, *, now: datetime) -> list[Row]:
    """Rows in reading order; levels without any budget at or below them are left out."""
    rows: list[Row] = []
    for node in _with_budgets(nodes):
        if node.kind != SESSION:
            nearest = node.effective.get(Unit.USD)
            rows.append(ScopeRow(node, exposure_of_row(nearest, now=now) if nearest else None))
        depth = node.depth - 1 if node.kind == SESSION else node.depth
        for row in node.budgets:
            exposure = _noted(exposure_of_row(row, now=now), places)
            rows.append(BudgetLine(exposure, depth, is_session=node.kind == SESSION))
    return rows


def _with_budgets(nodes: Sequence[ScopeNode]) -> list[ScopeNode]:
    """The nodes come depth first: one is wanted if a deeper one after it has a budget."""
    wanted, depth = [], -1
    for node in reversed(nodes):
        if node.budgets or node.depth < depth:
            wanted.append(node)
            depth = node.depth
    return wanted[::-1]


def _noted(exposure: Exposure, places: Places) -> Exposure:
    """A split budget tells by what, and whose balance is shown."""
    per = exposure.budget.per
    if not per:
        return exposure
    label = places.value_label(per, exposure.value)
    note = f"each {per}" + (f", fullest: {label}" if label else "")
    return replace(exposure, note=note, value_label=label)
