"""The tree of ownership with its budgets, and the cap that holds for each level."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from budgets.models import Balance, Budget
from budgets.queries.rows import BudgetRow, budget_rows, current_balances
from controlplane.identity.models import Agent, Organization, Project, Team
from enforcement.rules.policy import Per, ScopeKind
from enforcement.rules.windows import window_at

SESSIONS_SHOWN = 5


class Place(NamedTuple):
    kind: str
    id: UUID


@dataclass
class ScopeNode:
    """A level of ownership: organization, team, project, agent or (below its budget) a session.

    `effective` holds for each unit the hard budget with the least left, of its own and all above.
    """

    kind: str
    id: str
    name: str
    depth: int
    slug: str = ""
    budgets: list[BudgetRow] = field(default_factory=list)
    effective: dict[str, BudgetRow] = field(default_factory=dict)


class _Level(NamedTuple):
    """A level before it is placed in the tree."""

    place: Place
    name: str
    slug: str
    parent: Place | None


def tree(organization: Organization, *, now: datetime, archived: bool = False) -> list[ScopeNode]:
    """Depth first. An agent stands below its project, else its team, else the organization.

    Levels without budgets are there too, with the cap that holds for them. Each budget that is
    split by session brings its fullest sessions as nodes.
    """
    rows: dict[Place, list[BudgetRow]] = defaultdict(list)
    for row in budget_rows(organization, now=now, archived=archived):
        rows[_place_of(row.budget)].append(row)
    sessions = {} if archived else _fullest_sessions(organization, now=now)
    shares = {} if archived else _shares_of_agents(organization, now=now)
    children: dict[Place | None, list[_Level]] = defaultdict(list)
    for level in _levels(organization):
        children[level.parent].append(level)
    nodes: list[ScopeNode] = []

    def walk(
        parent: Place | None, depth: int, above: dict[str, BudgetRow], split: list[BudgetRow]
    ) -> None:
        for level in children[parent]:
            own = rows[level.place]
            each = [*split, *(row for row in own if row.budget.per == Per.AGENT)]
            effective = effective_caps(own, above=above)
            if level.place.kind == ScopeKind.AGENT:
                mine = [_share(row, shares, agent=level.place.id, now=now) for row in each]
                effective = _narrowed(effective, mine)
            nodes.append(
                ScopeNode(
                    kind=level.place.kind,
                    id=str(level.place.id),
                    name=level.name,
                    depth=depth,
                    slug=level.slug,
                    budgets=own,
                    effective=effective,
                )
            )
            for row in own:
                nodes.extend(
                    _session_node(row, balance, depth + 1, effective)
                    for balance in sessions.get(row.budget.id, [])
                )
            walk(level.place, depth + 1, effective, each)

    walk(None, 0, {}, [])
    return nodes


def effective_caps(rows: list[BudgetRow], *, above: dict[str, BudgetRow]) -> dict[str, BudgetRow]:
    """For each unit the hard budget with the least left.

    Split budgets bind only their values, filtered ones and those of a session only some calls.
    """
    return _narrowed(above, [row for row in rows if _binds_all(row.budget)])


def _binds_all(budget: Budget) -> bool:
    whole = budget.per == Per.NONE and not budget.filters
    return whole and budget.scope_kind != ScopeKind.SESSION


def _place_of(budget: Budget) -> Place:
    """Where a budget is shown: that of a session at its agent."""
    kind = ScopeKind.AGENT if budget.scope_kind == ScopeKind.SESSION else budget.scope_kind
    return Place(kind, budget.scope_id)


def _narrowed(above: dict[str, BudgetRow], rows: list[BudgetRow]) -> dict[str, BudgetRow]:
    caps = dict(above)
    for row in rows:
        nearest = caps.get(row.unit)
        if row.is_hard and (nearest is None or row.free < nearest.free):
            caps[row.unit] = row
    return caps


def _shares_of_agents(
    organization: Organization, *, now: datetime
) -> dict[tuple[UUID, str], Balance]:
    """The balances of budgets that are split by agent, by budget and agent."""
    balances = current_balances(organization, now=now).filter(
        budget__per=Per.AGENT, budget__archived_at__isnull=True
    )
    return {(balance.budget_id, balance.value): balance for balance in balances}


def _share(
    row: BudgetRow, shares: dict[tuple[UUID, str], Balance], *, agent: UUID, now: datetime
) -> BudgetRow:
    """A split budget as one agent has it; an agent without a balance has the whole limit."""
    balance = shares.get((row.budget.id, str(agent)))
    start, end = window_at(row.budget.window, now)
    return BudgetRow(row.budget, balance, start, end, row.balances)


def _levels(organization: Organization) -> list[_Level]:
    top = Place(ScopeKind.ORGANIZATION, organization.id)
    levels = [_Level(top, organization.name, organization.slug, None)]
    teams = Team.objects.filter(organization=organization).order_by("name")
    levels += [_Level(Place(ScopeKind.TEAM, team.id), team.name, team.slug, top) for team in teams]
    for project in Project.objects.filter(organization=organization).order_by("name"):
        parent = Place(ScopeKind.TEAM, project.team_id) if project.team_id else top
        place = Place(ScopeKind.PROJECT, project.id)
        levels.append(_Level(place, project.name, project.slug, parent))
    agents = Agent.objects.filter(organization=organization, retired_at__isnull=True)
    for agent in agents.order_by("name"):
        parent = top
        if agent.project_id:
            parent = Place(ScopeKind.PROJECT, agent.project_id)
        elif agent.team_id:
            parent = Place(ScopeKind.TEAM, agent.team_id)
        levels.append(_Level(Place(ScopeKind.AGENT, agent.id), agent.name, agent.slug, parent))
    return levels


def _fullest_sessions(organization: Organization, *, now: datetime) -> dict[UUID, list[Balance]]:
    """The last used balances of budgets that are split by session: a few for each budget."""
    found: dict[UUID, list[Balance]] = defaultdict(list)
    balances = current_balances(organization, now=now).filter(
        budget__per=Per.SESSION, budget__archived_at__isnull=True
    )
    for balance in balances.order_by("-updated_at")[:500]:
        if len(found[balance.budget_id]) < SESSIONS_SHOWN:
            found[balance.budget_id].append(balance)
    return found


def _session_node(
    row: BudgetRow, balance: Balance, depth: int, above: dict[str, BudgetRow]
) -> ScopeNode:
    own = BudgetRow(row.budget, balance, balance.window_start, balance.window_end, 1)
    effective = _narrowed(above, [own])
    return ScopeNode(
        kind="session",
        id=str(balance.id),
        name=balance.value,
        depth=depth,
        budgets=[own],
        effective=effective,
    )
