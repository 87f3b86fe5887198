"""What the simulated organization has: budgets of every shape, and which of them a call pays.

The production rules match, split and follow session trees; only the budgets are made up.
"""

from functools import partial
from random import Random

from msgspec.structs import replace

from enforcement.rules.matching import BalanceOf
from enforcement.rules.policy import (
    AgentPolicy,
    BudgetPolicy,
    Overflow,
    Per,
    PolicySnapshot,
    ScopeKind,
    Unit,
)
from enforcement.rules.rights import Rights
from enforcement.rules.wire import Attribution

ORGANIZATION = "org"
AGENTS = 4
USERS = 6
MAX_USERS = 3  # with a balance of their own
ROOM = (1, 3)  # half of the seeds are tight
LIMITS = {
    "org": [15_000, 40_000, 90_000],
    "team": [6_000, 12_000, 30_000],
    "agent": [2_000, 5_000, 9_000],
    "session": [400, 900, 4_000],
    "model": [9_000, 25_000],
    "steps": [600, 2_000],
    "user": [1_500, 6_000],
}
OF_SESSIONS = ("session", "steps")
DELEGABLE = "session"
LATE = "late"  # a budget that somebody makes while everything runs


_budget = partial(
    BudgetPolicy, scope_kind=ScopeKind.ORGANIZATION, scope_id=ORGANIZATION, unit=Unit.TOKENS
)


def draw(chance: Random) -> PolicySnapshot:
    """An organization with limits of its own."""
    overflow = chance.choice(list(Overflow))
    room = chance.choice(ROOM)
    limits = {name: room * chance.choice(choices) for name, choices in LIMITS.items()}
    team, agent, session, user = (per.value for per in (Per.TEAM, Per.AGENT, Per.SESSION, Per.USER))
    large, search, users = {"model": ["large"]}, {"skill": ["search"]}, {"user": ["u*"]}
    budgets = [
        _budget("org", "org", limit=limits["org"]),
        _budget("team", "team", limit=limits["team"], per=team),
        _budget("agent", "agent", limit=limits["agent"], per=agent),
        _budget("session", "session", limit=limits["session"], per=session),
        _budget("model", "model", limit=limits["model"], filters=large),
        _budget("steps", "steps", limit=limits["steps"], per=session, filters=search),
        replace(
            _budget("user", "user", limit=limits["user"], per=user, filters=users),
            max_values=MAX_USERS,
            overflow=overflow,
        ),
    ]
    agents = [AgentPolicy(str(n), f"agent-{n}", team=str(n % 2)) for n in range(AGENTS)]
    return PolicySnapshot(ORGANIZATION, 1, pepper="5eed", agents=agents, budgets=budgets)


def with_late_budget(policy: PolicySnapshot, limit: int) -> PolicySnapshot:
    """The next revision: with one hard budget more, which every call matches."""
    budgets = [*policy.budgets, _budget(LATE, LATE, limit=limit)]
    return replace(policy, revision=policy.revision + 1, budgets=budgets)


class Charges:
    """What calls are charged to under one policy, looked up once for calls that are alike."""

    def __init__(self, rights: Rights) -> None:
        self.rights = rights
        self._known: dict[tuple[str, ...], tuple[BalanceOf, ...]] = {}

    def of(self, facts: Attribution) -> tuple[BalanceOf, ...]:
        alike = (facts.agent, facts.session, facts.user, facts.model, facts.skill, facts.delegation)
        known = self._known.get(alike)
        if known is None:
            known = self._known[alike] = _balances_of(self.rights, facts)
        return known


def _balances_of(rights: Rights, facts: Attribution) -> tuple[BalanceOf, ...]:
    """The balances that a call is charged to."""
    if facts.delegation:
        return tuple(rights.balances_of_tree(rights.lineage(facts.delegation), facts))
    agent = rights.agent(facts.agent)
    if agent is None:
        raise AssertionError(f"no agent {facts.agent}")
    subject = rights.subject(facts, agent, facts.session)
    return rights.plan(subject).balances(subject)


def root_of(session: str) -> str:
    """The session that a tree began with. Here children are named below their parents."""
    return session.partition("/")[0]
