"""Which budgets a request is charged to, compiled once for each policy revision.

1. A budget matches when its scope is the organization, or the agent's team or project, or the
   agent itself, or the agent's session, and when every fact that it filters on fits.
2. `per` names the balance inside the budget: that of the agent, the session, the model, a tag …
3. A fact that a request does not have fits no pattern, and its balance is that of the value "".
4. However many budgets there are, a request looks at those that its own facts lead to: patterns
   are look-ups (exact, or by the length of a prefix), never a scan.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

from msgspec import Struct, field

from enforcement.rules.policy import (
    PROMPT_UNITS,
    AgentPolicy,
    BudgetPolicy,
    HoldMode,
    Mode,
    Per,
    ScopeKind,
    Unit,
)

TAG = "tag:"
FILTERABLE = ("user", "model", "provider", "node", "skill")  # and tags
MAX_PLANS = 4_096  # kept for each agent; then they are made anew

BalanceOf = tuple[str, str]  # a budget's id and a split value


class Subject(Struct, frozen=True):
    """Whose request it is, and what it is attributed to. Ids; empty where there is none."""

    organization: str
    agent: str
    team: str | None = None
    project: str | None = None
    session: str = ""
    user: str = ""
    model: str = ""
    provider: str = ""
    node: str = ""
    skill: str = ""
    tags: dict[str, str] = field(default_factory=dict)


def subject_of(
    organization: str,
    agent: AgentPolicy,
    *,
    session: str = "",
    user: str = "",
    model: str = "",
    provider: str = "",
    node: str = "",
    skill: str = "",
    tags: dict[str, str] | None = None,
) -> Subject:
    """The subject of an agent's request."""
    return Subject(
        organization=organization,
        agent=agent.id,
        team=agent.team,
        project=agent.project,
        session=session,
        user=user,
        model=model,
        provider=provider,
        node=node,
        skill=skill,
        tags=tags or {},
    )


def fact_of(subject: Subject, name: str) -> str:
    """One fact by the name that filters and splits give it; empty where there is none."""
    if name.startswith(TAG):
        return subject.tags.get(name[len(TAG) :], "")
    return getattr(subject, name) or ""


def reader_of(name: str) -> Callable[[Subject], str]:
    """Reads one fact that every subject has, as `fact_of` does, its name looked at once."""
    if not name.startswith(TAG):
        return attrgetter(name)
    tag = name[len(TAG) :]
    return lambda subject: subject.tags.get(tag, "")


def fits(pattern: str, fact: str) -> bool:
    """Whether a fact is the pattern, or begins with what stands before its last `*`."""
    if not fact:
        return False
    return fact.startswith(pattern[:-1]) if pattern.endswith("*") else fact == pattern


def in_scope(budget: BudgetPolicy, subject: Subject) -> bool:
    kind = budget.scope_kind
    if kind is ScopeKind.SESSION:
        return (budget.scope_id, budget.scope_session) == (subject.agent, subject.session)
    owner = {
        ScopeKind.ORGANIZATION: subject.organization,
        ScopeKind.TEAM: subject.team,
        ScopeKind.PROJECT: subject.project,
        ScopeKind.AGENT: subject.agent,
    }[kind]
    return owner == budget.scope_id


def passes(budget: BudgetPolicy, subject: Subject) -> bool:
    """Whether every fact that the budget filters on fits one of its patterns."""
    return all(
        any(fits(pattern, fact_of(subject, name)) for pattern in patterns)
        for name, patterns in budget.filters.items()
    )


def matches(budget: BudgetPolicy, subject: Subject) -> bool:
    """Whether the subject's use counts against the budget."""
    return in_scope(budget, subject) and passes(budget, subject)


def value_of(per: str, subject: Subject) -> str:
    """The split value: which balance of a budget the subject has."""
    return fact_of(subject, per) if per else ""


class Plan:
    """The budgets that a request matches, hard ones first, in the order of their ids."""

    __slots__ = (
        "_fixed",
        "_splits",
        "budgets",
        "counts_calls",
        "metered",
        "prompt_sized",
        "timed",
        "units",
    )

    def __init__(self, budgets: Iterable[BudgetPolicy]) -> None:
        self.budgets = tuple(sorted(budgets, key=lambda b: (b.mode is not Mode.HARD, b.id)))
        self.units = frozenset(budget.unit for budget in self.budgets)
        self.metered = any(budget.hold_mode is HoldMode.METERED for budget in self.budgets)
        self.prompt_sized = not self.units.isdisjoint(PROMPT_UNITS)
        self.timed = Unit.GPU_MS in self.units
        self.counts_calls = Unit.TOOL_CALLS in self.units
        self._splits = any(budget.per for budget in self.budgets)
        self._fixed = tuple((budget.id, "") for budget in self.budgets)

    @classmethod
    def of_pairs(cls, pairs: Mapping[BalanceOf, BudgetPolicy]) -> "Plan":
        """A plan whose balances are known: a budget may stand in it more than once."""
        plan = cls(pairs.values())
        order = {budget.id: place for place, budget in enumerate(plan.budgets)}
        plan._splits = False
        plan._fixed = tuple(sorted(pairs, key=lambda key: (order[key[0]], key[1])))
        return plan

    def balances(self, subject: Subject) -> tuple[BalanceOf, ...]:
        """The balance of each budget, in their order."""
        if not self._splits:
            return self._fixed
        return tuple((budget.id, value_of(budget.per, subject)) for budget in self.budgets)


class _Index:
    """The budgets in one agent's scope, found by the facts that they filter on."""

    __slots__ = ("_always", "_by_fact", "_lengths", "_plans", "_readers")

    def __init__(self, budgets: Iterable[BudgetPolicy]) -> None:
        self._always: list[BudgetPolicy] = []
        self._by_fact: dict[tuple[str, int, str], list[BudgetPolicy]] = {}
        self._lengths: dict[str, set[int]] = {}  # of prefixes, by fact; -1: the whole fact
        self._plans: dict[tuple[str, ...], Plan] = {}
        names: set[str] = set()
        for budget in budgets:
            filters = _filters_of(budget)
            names.update(filters)
            if filters:
                self._add(budget, filters)
            else:
                self._always.append(budget)
        self._readers = tuple(reader_of(name) for name in sorted(names))

    def _add(self, budget: BudgetPolicy, filters: dict[str, list[str]]) -> None:
        """File a budget under the one fact with the most telling patterns."""
        name = min(filters, key=lambda n: (any(p.endswith("*") for p in filters[n]), n))
        for pattern in dict.fromkeys(filters[name]):
            prefix = pattern.endswith("*")
            length, text = (len(pattern) - 1, pattern[:-1]) if prefix else (-1, pattern)
            self._lengths.setdefault(name, set()).add(length)
            self._by_fact.setdefault((name, length, text), []).append(budget)

    def plan(self, subject: Subject) -> Plan:
        key = tuple([read(subject) for read in self._readers])
        known = self._plans.get(key)
        if known is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            known = self._plans[key] = Plan(self._find(subject))
        return known

    def _find(self, subject: Subject) -> list[BudgetPolicy]:
        found = {}
        for name, lengths in self._lengths.items():
            fact = fact_of(subject, name)
            for length in lengths if fact else ():
                text = fact if length < 0 else fact[:length]
                for budget in self._by_fact.get((name, length, text), ()):
                    if matches(budget, subject):
                        found[budget.id] = budget
        return [*self._always, *found.values()]


def _filters_of(budget: BudgetPolicy) -> dict[str, list[str]]:
    """Its filters, and the session that is its scope."""
    if budget.scope_kind is ScopeKind.SESSION:
        return {"session": [budget.scope_session], **budget.filters}
    return budget.filters


class Matcher:
    """Finds the plan of any request among the budgets of one organization."""

    def __init__(self, budgets: Sequence[BudgetPolicy]) -> None:
        self._by_scope: dict[tuple[ScopeKind, str | None], list[BudgetPolicy]] = {}
        for budget in budgets:
            # A session's budget is found through its agent, whose id is its scope.
            agents = budget.scope_kind is ScopeKind.SESSION
            kind = ScopeKind.AGENT if agents else budget.scope_kind
            self._by_scope.setdefault((kind, budget.scope_id), []).append(budget)
        self._indexes: dict[tuple[str, str | None, str | None], _Index] = {}

    def plan(self, subject: Subject) -> Plan:
        """The budgets that a request is charged to."""
        place = (subject.agent, subject.team, subject.project)
        index = self._indexes.get(place)
        if index is None:
            index = self._indexes[place] = _Index(self._in_scope(subject))
        return index.plan(subject)

    def _in_scope(self, subject: Subject) -> list[BudgetPolicy]:
        scopes = (
            (ScopeKind.ORGANIZATION, subject.organization),
            (ScopeKind.TEAM, subject.team),
            (ScopeKind.PROJECT, subject.project),
            (ScopeKind.AGENT, subject.agent),
        )
        return [budget for scope in scopes for budget in self._by_scope.get(scope, ())]


def is_client_named(per: str) -> bool:
    """Whether the values of a split are what callers say, so that they can make new ones."""
    return per in (Per.SESSION, Per.USER, Per.SKILL) or per.startswith(TAG)
