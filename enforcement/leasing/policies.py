"""Compiled policies, kept until a hint says that they have changed."""

import asyncio
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from budgets.domain.balances import OTHER_VALUE
from controlplane.identity.models import Organization
from enforcement.domain.policy import compile_policy
from enforcement.leasing.threads import DjangoThreads
from enforcement.rules.matching import Matcher, Subject, matches, subject_of, value_of
from enforcement.rules.policy import AgentPolicy, BudgetPolicy, Mode, Overflow, Per, PolicySnapshot
from enforcement.rules.sessiontree import LineageError, key_of, pairs_of, unseal
from enforcement.rules.wire import Attribution, Group, GroupItem

RECHECK_S = 2.0  # how long a lost hint can hide a change


class Policy:
    """A snapshot with the look-ups that grants need."""

    def __init__(self, snapshot: PolicySnapshot) -> None:
        self.snapshot = snapshot
        self.revision = snapshot.revision
        self._agents: dict[str, AgentPolicy] = {agent.id: agent for agent in snapshot.agents}
        self._budgets: dict[str, BudgetPolicy] = {b.id: b for b in snapshot.budgets}
        self._matcher = Matcher([b for b in snapshot.budgets if b.mode is Mode.HARD])
        self.tree_key = key_of(bytes.fromhex(snapshot.pepper))
        self.checked_at = monotonic()

    def budget(self, budget: str) -> BudgetPolicy | None:
        return self._budgets.get(budget)

    def agent(self, agent: str) -> AgentPolicy | None:
        return self._agents.get(agent)

    def budgets_of(self, group: Group) -> list[BudgetPolicy] | None:
        """The budget of each item, or None when one is not what its attribution says (L15)."""
        agent = self._agents.get(group.attribution.agent)
        if agent is None:
            return None
        if group.attribution.delegation:
            return self._of_tree(group)
        subject = self.subject(group.attribution, agent, group.attribution.session)
        found = []
        for item in group.items:
            budget = self._budgets.get(item.budget)
            if budget is None or budget.mode is not Mode.HARD or not matches(budget, subject):
                return None
            if item.value not in _values_of(budget, subject):
                return None
            found.append(budget)
        return found

    def is_given(self, group: Group, item: GroupItem) -> bool:
        """Whether a balance is what a session of the group's tree was given by its parent (L14)."""
        token = group.attribution.delegation
        if not token or self._budgets[item.budget].per != Per.SESSION:
            return False
        return item.value != unseal(token, key=self.tree_key).levels[-1].session

    def subject(self, facts: Attribution, agent: AgentPolicy, session: str) -> Subject:
        return subject_of(
            self.snapshot.organization,
            agent,
            session=session,
            user=facts.user,
            model=facts.model,
            provider=facts.provider,
            node=facts.node,
            skill=facts.skill,
            tags=facts.tags,
        )

    def _of_tree(self, group: Group) -> list[BudgetPolicy] | None:
        """As `budgets_of`, for a call of a child session (L14)."""
        facts = group.attribution
        try:
            lineage = unseal(facts.delegation, key=self.tree_key)
            pairs = pairs_of(
                lineage,
                subject_at=lambda level: self.subject(
                    facts, self._agents[level.agent], level.session
                ),
                plan=self._matcher.plan,
            )
        except (LineageError, KeyError):
            return None
        if (lineage.agent, lineage.session) != (facts.agent, facts.session):
            return None
        found = [pairs.get((item.budget, item.value)) for item in group.items]
        return [b for b in found if b is not None] if None not in found else None


def _values_of(budget: BudgetPolicy, subject: Subject) -> tuple[str, ...]:
    """The balances that a subject may have: its own, and the shared one of a full split."""
    own = value_of(budget.per, subject)
    shares = budget.per and budget.overflow is Overflow.SHARE
    return (own, OTHER_VALUE) if shares else (own,)


class Policies:
    """One policy for each organization, compiled in a thread when it is first asked for."""

    def __init__(self, threads: DjangoThreads) -> None:
        self._threads = threads
        self._known: dict[str, Policy] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed_at: dict[str, float] = {}

    def forget(self, organization: str) -> None:
        """A hint came: compile anew when next asked, even if that runs at this moment."""
        self._changed_at[organization] = monotonic()

    def _fresh(self, organization: str) -> Policy | None:
        known = self._known.get(organization)
        if known is None or monotonic() - known.checked_at >= RECHECK_S:
            return None
        return known if known.checked_at > self._changed_at.get(organization, 0.0) else None

    async def get(self, organization: str) -> Policy:
        """The policy of now: changes of which a hint has come are in it."""
        if known := self._fresh(organization):
            return known
        async with self._locks.setdefault(organization, asyncio.Lock()):
            if known := self._fresh(organization):
                return known
            known = self._known.get(organization)
            asked_at = monotonic()
            known_revision = known.revision if known else 0
            fresh = await self._threads.run(_read, UUID(organization), known_revision)
            if fresh is not None or known is None:
                if fresh is None:
                    raise LookupError(f"no organization {organization}")
                known = self._known[organization] = Policy(fresh)
            known.checked_at = asked_at
            return known


def _read(organization_id: UUID, known_revision: int) -> PolicySnapshot | None:
    """The policy, or None when the known revision still holds."""
    revision = (
        Organization.objects.filter(pk=organization_id)
        .values_list("policy_revision", flat=True)
        .first()
    )
    if revision is None or revision == known_revision:
        return None
    return compile_policy(organization_id=organization_id, now=datetime.now(tz=UTC))
