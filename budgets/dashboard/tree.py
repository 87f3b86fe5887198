"""The tree of budgets: organization › team › project › agent, each scope with its budgets."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.urls import reverse

from budgets.dashboard.exposures import Exposure, fullest_exposures
from budgets.dashboard.places import Place, Places
from budgets.models import Budget
from enforcement.rules.wire import Mode, ScopeKind, Unit


@dataclass(frozen=True)
class ScopeRow:
    """A scope that has budgets, or one below it has; with the nearest dollar cap on its way up."""

    place: Place
    depth: int
    effective: Exposure | None
    is_scope: bool = True

    @property
    def key(self) -> UUID:
        return self.place.id

    @property
    def url(self) -> str:
        return reverse("enforcement:agent", args=[self.place.id])

    @property
    def is_agent(self) -> bool:
        return self.place.kind is ScopeKind.AGENT


@dataclass(frozen=True)
class BudgetRow:
    exposure: Exposure
    depth: int
    is_scope: bool = False


Row = ScopeRow | BudgetRow


def budget_tree(budgets: Sequence[Budget], places: Places, *, now: datetime) -> list[Row]:
    """Rows in reading order. Five queries in all, `Places` included."""
    by_scope: dict[UUID, list[Exposure]] = defaultdict(list)
    for exposure in fullest_exposures(budgets, now=now):
        by_scope[exposure.budget.scope_id].append(_noted(exposure, places))
    wanted = {place.id for scope in by_scope for place in places.path(scope)}
    return list(_walk(places.root, 0, by_scope, wanted, places, caps=()))


def _walk(
    place: Place,
    depth: int,
    by_scope: dict[UUID, list[Exposure]],
    wanted: set[UUID],
    places: Places,
    *,
    caps: tuple[Exposure, ...],
) -> Iterator[Row]:
    own = sorted(by_scope.get(place.id, []), key=lambda row: (row.mode != Mode.HARD, row.name))
    caps = (*caps, *(row for row in own if _caps_everyone(row)))
    nearest = min(caps, key=lambda row: row.free, default=None)
    yield ScopeRow(place, depth, nearest)
    for exposure in own:
        yield BudgetRow(exposure, depth + 1)
    for child in places.children(place.id):
        if child.id in wanted:
            yield from _walk(child, depth + 1, by_scope, wanted, places, caps=caps)


def _caps_everyone(exposure: Exposure) -> bool:
    """Whether its free amount is a cap for all below, so that caps can be compared."""
    budget = exposure.budget
    return budget.mode == Mode.HARD and budget.unit == Unit.USD and not budget.per


def _noted(exposure: Exposure, places: Places) -> Exposure:
    """A split budget tells by what, and whose balance is shown."""
    per = exposure.budget.per
    if not per:
        return exposure
    label = places.value_label(per, exposure.value)
    note = f"each {per}" + (f", fullest: {label}" if label else "")
    return replace(exposure, note=note, value_label=label)
