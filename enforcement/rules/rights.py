"""What a group says it is charged to, checked against the policy (L14, L15).

A sidecar names balances; the control plane makes and leases only those that follow from the
attribution: nobody reaches a balance by its name.
"""

from enforcement.rules.matching import BalanceOf, Matcher, Plan, Subject, subject_of
from enforcement.rules.policy import AgentPolicy, BudgetPolicy, Mode, Per, PolicySnapshot
from enforcement.rules.sessiontree import Lineage, LineageError, is_given, key_of, pairs_of, unseal
from enforcement.rules.splits import values_of
from enforcement.rules.wire import Attribution, Group, GroupItem


class Rights:
    """A snapshot with the look-ups that grants need."""

    def __init__(self, snapshot: PolicySnapshot) -> None:
        self.snapshot = snapshot
        self.revision = snapshot.revision
        self.tree_key = key_of(bytes.fromhex(snapshot.pepper))
        self._agents: dict[str, AgentPolicy] = {agent.id: agent for agent in snapshot.agents}
        self._budgets: dict[str, BudgetPolicy] = {b.id: b for b in snapshot.budgets}
        self._matcher = Matcher([b for b in snapshot.budgets if b.mode is Mode.HARD])

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
        matched = {budget.id: budget for budget in self.plan(subject).budgets}
        found = []
        for item in group.items:
            budget = matched.get(item.budget)
            if budget is None or item.value not in values_of(budget, subject):
                return None
            found.append(budget)
        return found

    def is_given(self, group: Group, item: GroupItem) -> bool:
        """Whether a balance is what a session of the group's tree was given by its parent (L14)."""
        token = group.attribution.delegation
        if not token or self._budgets[item.budget].per != Per.SESSION:
            return False
        return is_given(self.lineage(token), item.value)

    def lineage(self, token: str) -> Lineage:
        """What a delegation token says. Raises LineageError: nobody here sealed it."""
        return unseal(token, key=self.tree_key)

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

    def balances_of_tree(
        self, lineage: Lineage, facts: Attribution
    ) -> dict[BalanceOf, BudgetPolicy]:
        """The balances that a call of a child session is charged to (L14).

        Raises:
            KeyError: an agent of the tree is gone.
        """
        return pairs_of(
            lineage,
            subject_at=lambda level: self.subject(facts, self._agents[level.agent], level.session),
            plan=self._matcher.plan,
        )

    def plan(self, subject: Subject) -> Plan:
        """The hard budgets of a call."""
        return self._matcher.plan(subject)

    def _of_tree(self, group: Group) -> list[BudgetPolicy] | None:
        """As `budgets_of`, for a call of a child session."""
        facts = group.attribution
        try:
            lineage = self.lineage(facts.delegation)
            pairs = self.balances_of_tree(lineage, facts)
        except (LineageError, KeyError):
            return None
        if (lineage.agent, lineage.session) != (facts.agent, facts.session):
            return None
        found = [pairs.get((item.budget, item.value)) for item in group.items]
        return [b for b in found if b is not None] if None not in found else None
