"""Session trees over the wire: what a session may give of, and the token of its child (L14)."""

from datetime import timedelta
from uuid import UUID

from budgets.domain.delegations import Given, Wish
from enforcement.errors import MessageError
from enforcement.leasing.policies import Policy
from enforcement.rules.matching import in_scope
from enforcement.rules.policy import Mode, Per, Unit
from enforcement.rules.sessiontree import Lineage, LineageError, seal, session_of
from enforcement.rules.verdicts import shown
from enforcement.rules.wire import Delegate, Delegated

MAX_AMOUNTS = 100


def wish_of(message: Delegate, policy: Policy) -> Wish:
    """What a message asks for, with the balances that its session has by the policy.

    Raises MessageError.
    """
    facts = message.attribution
    agent = policy.agent(facts.agent)
    if agent is None or len(message.amounts) > MAX_AMOUNTS:
        raise MessageError("no such agent, or too many amounts")
    lineage = _lineage(facts.delegation, policy)
    session = lineage.session if lineage else facts.session
    subject = policy.subject(facts, agent, session)
    return Wish(
        parent_agent=UUID(agent.id),
        parent_session=session,
        lineage=lineage,
        values={
            budget.id: session_of(lineage, budget.id) if lineage else session
            for budget in policy.snapshot.budgets
            if budget.mode is Mode.HARD and budget.per == Per.SESSION and in_scope(budget, subject)
        },
        child_session=message.child_session,
        child_agent=message.child_agent,
        amounts=message.amounts,
        percent=message.percent,
        expires_in=timedelta(seconds=min(max(message.expires_in_s, 0), 10**9)),
    )


def _lineage(token: str, policy: Policy) -> Lineage | None:
    if not token:
        return None
    try:
        return policy.lineage(token)
    except LineageError as error:
        raise MessageError(str(error)) from error


def told(given: Given, policy: Policy) -> Delegated:
    """The answer: the child's token, and what it got."""
    return Delegated(
        delegation=given.lineage.delegation,
        token=seal(given.lineage, key=policy.tree_key),
        session=given.lineage.session,
        expires_at_ms=int(given.expires_at.timestamp() * 1000),
        amounts={name: shown(Unit(unit), amount) for name, (unit, amount) in given.amounts.items()},
    )
