"""Which budgets a request is charged to, compiled once for each policy revision.

A budget matches when its scope is the organization, or the agent's team or project, or the agent
itself. `per` then names the balance inside the budget: the agent's or the session's own.
"""

from msgspec import Struct

from enforcement.rules.policy import AgentPolicy, BudgetPolicy, Mode, Per, PolicySnapshot, ScopeKind


class Subject(Struct, frozen=True):
    """Whose request it is. Ids; empty where there is none."""

    organization: str
    agent: str
    team: str | None = None
    project: str | None = None
    session: str = ""


def subject_of(organization: str, agent: AgentPolicy, *, session: str = "") -> Subject:
    return Subject(
        organization=organization,
        agent=agent.id,
        team=agent.team,
        project=agent.project,
        session=session,
    )


def matches(budget: BudgetPolicy, subject: Subject) -> bool:
    """Whether the subject's use counts against the budget."""
    owner = {
        ScopeKind.ORGANIZATION: subject.organization,
        ScopeKind.TEAM: subject.team,
        ScopeKind.PROJECT: subject.project,
        ScopeKind.AGENT: subject.agent,
    }[budget.scope_kind]
    return owner == budget.scope_id


def value_of(per: Per, subject: Subject) -> str:
    """The split value: which balance of a budget the subject has."""
    if per is Per.AGENT:
        return subject.agent
    return subject.session if per is Per.SESSION else ""


class MatchPlans:
    """For each agent the budgets that it matches: hard ones first, in the order of their ids."""

    def __init__(self, policy: PolicySnapshot) -> None:
        self._policy = policy
        self._agents = {agent.id: agent for agent in policy.agents}
        self._plans: dict[str, tuple[BudgetPolicy, ...]] = {}

    def plan(self, agent_id: str) -> tuple[BudgetPolicy, ...]:
        """Raises KeyError for an agent that the policy does not know."""
        known = self._plans.get(agent_id)
        if known is None:
            subject = subject_of(self._policy.organization, self._agents[agent_id])
            found = [budget for budget in self._policy.budgets if matches(budget, subject)]
            known = tuple(sorted(found, key=lambda b: (b.mode is not Mode.HARD, b.id)))
            self._plans[agent_id] = known
        return known
