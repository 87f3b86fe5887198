"""Reads of agents for the pages: one row each, with today's use and what runs now."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import OuterRef, QuerySet, Subquery, Sum

from budgets import queries
from budgets.models import Refusal, UsageEvent
from budgets.queries import Spend
from controlplane.identity.models import Agent, Organization
from enforcement.dashboard.fleet import running_by_agent
from enforcement.queries import running_sessions


@dataclass(frozen=True)
class AgentRow:
    id: UUID
    slug: str
    name: str
    place: str
    state: str
    owner: str
    running: int
    calls: int
    cut: int
    refused: int
    tokens: int
    charge_nanos: int
    last_call_at: datetime | None

    @property
    def stopped(self) -> int:
        return self.cut + self.refused


def agents_of(organization: Organization) -> QuerySet[Agent]:
    """Agents with their place and owner, and the instant of their last call."""
    last = UsageEvent.objects.filter(organization_id=organization.id, agent_id=OuterRef("id"))
    return (
        Agent.objects.filter(organization=organization)
        .select_related("team", "project__team", "owner")
        .annotate(last_call_at=Subquery(last.order_by("-started_at").values("started_at")[:1]))
        .order_by("name", "id")
    )


@dataclass(frozen=True)
class Activity:
    """What all agents of an organization did since midnight, and what runs now: four queries."""

    spent: Mapping[str | None, Spend]
    refused: Mapping[UUID | None, int]
    running: Mapping[UUID, int]

    @classmethod
    def of(cls, organization: Organization, *, now: datetime) -> "Activity":
        since = queries.day_start(organization, now=now)
        spends = queries.spend_by(organization_id=organization.id, since=since, until=now)
        return cls(
            spent={spend.key[0]: spend for spend in spends},
            refused=refused_by_agent(organization, since=since),
            running=running_by_agent(running_sessions(organization, now=now)),
        )

    def busiest(self, most: int) -> list[UUID]:
        """Agents that run something, then those that spent most, then those that were refused."""
        spenders = sorted(self.spent.items(), key=lambda item: -item[1].charge_nanos)
        ids = [*sorted(self.running, key=lambda agent_id: -self.running[agent_id])]
        ids += [UUID(agent_id) for agent_id, _ in spenders if agent_id]
        ids += [agent_id for agent_id in self.refused if agent_id]
        return list(dict.fromkeys(ids))[:most]

    def row(self, agent: Agent) -> AgentRow:
        spend = self.spent.get(str(agent.id))
        refused, running = self.refused.get(agent.id, 0), self.running.get(agent.id, 0)
        return _row(agent, spend, refused, running)


def agent_rows(
    organization: Organization, *, now: datetime, agents: Collection[Agent] | None = None
) -> list[AgentRow]:
    """Rows of some agents, or of all that are not retired. Five queries, however many."""
    if agents is None:
        agents = list(agents_of(organization).filter(retired_at=None))
    activity = Activity.of(organization, now=now)
    return [activity.row(agent) for agent in agents]


def busiest_rows(organization: Organization, activity: Activity, *, most: int) -> list[AgentRow]:
    """The busiest agents of today, busiest first. One query."""
    ids = activity.busiest(most)
    agents = {agent.id: agent for agent in agents_of(organization).filter(id__in=ids)}
    return [activity.row(agents[agent_id]) for agent_id in ids if agent_id in agents]


def refused_by_agent(organization: Organization, *, since: datetime) -> dict[UUID | None, int]:
    rows = Refusal.objects.filter(organization=organization, at__gte=since)
    counts = rows.values_list("agent_id").annotate(n=Sum("count")).order_by()
    return {agent_id: int(n) for agent_id, n in counts}


def place_of(agent: Agent) -> str:
    """`Search › Crawler`: team and project, or what there is of them."""
    team = agent.team or (agent.project.team if agent.project else None)
    names = [place.name for place in (team, agent.project) if place is not None]
    return " › ".join(names) or "no team"


def state_of(agent: Agent) -> str:
    return "retired" if agent.retired_at else agent.state


def _row(agent: Agent, spend: Spend | None, refused: int, running: int) -> AgentRow:
    return AgentRow(
        id=agent.id,
        slug=agent.slug,
        name=agent.name,
        place=place_of(agent),
        state=state_of(agent),
        owner=str(agent.owner) if agent.owner else "",
        running=running,
        calls=spend.calls if spend else 0,
        cut=spend.cut_calls if spend else 0,
        refused=refused,
        tokens=spend.tokens if spend else 0,
        charge_nanos=spend.charge_nanos if spend else 0,
        last_call_at=getattr(agent, "last_call_at", None),
    )
