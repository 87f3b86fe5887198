"""Every budget that a request would be charged to, what is free, and what would become of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q

from budgets.domain.balances import BalanceKey, find_balances, own_limits
from budgets.domain.matchers import compiled_budgets
from budgets.domain.prices import price_policies
from budgets.domain.scopes import team_of
from budgets.models import Balance, Budget
from controlplane.identity.enums import Role
from controlplane.identity.models import Agent, Membership
from enforcement.rules.estimate import Bound, price_for
from enforcement.rules.explain import Explanation, Line, Standing, explain
from enforcement.rules.matching import Subject
from enforcement.rules.policy import AgentState, BudgetPolicy, PricePolicy
from enforcement.rules.verdicts import state_refusal
from enforcement.rules.windows import window_at

FLOOR_OUTPUT_TOKENS = 16
RAISERS_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request to explain: whose, with which facts, and how large at most."""

    agent: Agent
    session: str = ""
    user: str = ""
    model: str = ""
    provider: str = ""
    node: str = ""
    skill: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 4096
    gpu_ms: int = 0
    tool_calls: int = 0

    @property
    def bound(self) -> Bound:
        return Bound(self.input_tokens, self.output_tokens, None, self.gpu_ms, self.tool_calls)

    @property
    def floor(self) -> Bound:
        """The least answer that a sidecar clamps to."""
        return Bound(
            self.input_tokens,
            min(self.output_tokens, FLOOR_OUTPUT_TOKENS),
            None,
            min(self.gpu_ms, 1_000),
            min(self.tool_calls, 1),
        )


@dataclass(frozen=True)
class Raiser:
    """A person who may raise a limit."""

    name: str
    email: str
    role: str


@dataclass(frozen=True)
class ExplainedBudget:
    """One line, with its row and window."""

    line: Line
    budget: Budget
    window_start: datetime
    window_end: datetime | None


@dataclass(frozen=True)
class Explained:
    """The whole answer."""

    wish: Wish
    price: PricePolicy | None
    explanation: Explanation
    budgets: list[ExplainedBudget]
    raisers: list[Raiser]


def explain_request(wish: Wish, *, now: datetime) -> Explained:
    """Explain one request as of now. Five queries, however many budgets there are."""
    organization_id = wish.agent.organization_id
    compiled = compiled_budgets(organization_id)
    subject = _subject(wish)
    plan = compiled.matcher.plan(subject)
    rows = [compiled.budgets[policy.id] for policy in plan.budgets]
    values = [value for _, value in plan.balances(subject)]
    windows = [window_at(policy.window, now) for policy in plan.budgets]
    keys = [
        BalanceKey(row.id, value, window[0])
        for row, value, window in zip(rows, values, windows, strict=True)
    ]
    price = _price(organization_id, wish, plan.budgets, now=now)
    explanation = explain(
        plan.budgets,
        plan.balances(subject),
        _standings(rows, keys, windows),
        wish.bound,
        floor=wish.floor,
        price=price,
        model=wish.model,
        blocked=state_refusal(AgentState(wish.agent.state)),
    )
    budgets = [
        ExplainedBudget(line, row, *window)
        for line, row, window in zip(explanation.lines, rows, windows, strict=True)
    ]
    return Explained(wish, price, explanation, budgets, _raisers(organization_id))


def _subject(wish: Wish) -> Subject:
    agent, team = wish.agent, team_of(wish.agent)
    return Subject(
        organization=str(agent.organization_id),
        agent=str(agent.id),
        team=str(team) if team else None,
        project=str(agent.project_id) if agent.project_id else None,
        session=wish.session,
        user=wish.user,
        model=wish.model,
        provider=wish.provider,
        node=wish.node,
        skill=wish.skill,
        tags=dict(wish.tags),
    )


def _price(
    organization_id: UUID, wish: Wish, budgets: Sequence[BudgetPolicy], *, now: datetime
) -> PricePolicy | None:
    if not any(budget.unit == "usd" for budget in budgets):
        return None
    prices = price_policies(organization_id=organization_id, now=now, models={wish.model})
    return price_for(prices, model=wish.model, provider=wish.provider)


def _standings(
    rows: Sequence[Budget],
    keys: Sequence[BalanceKey],
    windows: Sequence[tuple[datetime, datetime | None]],
) -> dict[tuple[str, str], Standing]:
    """Where each balance stands; one that is not there yet has its limit free."""
    known = {(b.budget_id, b.value): b for b in find_balances(keys)}
    limits = own_limits([row.id for row in rows if row.per]) if any(r.per for r in rows) else {}
    standings = {}
    for row, key, (_, end) in zip(rows, keys, windows, strict=True):
        place = (row.id, key.value)
        limit = limits.get(place, row.limit_amount) + row.increase_amount
        fresh = Balance(limit_amount=limit, window_end=end)
        standings[str(row.id), key.value] = _standing(known.get(place, fresh))
    return standings


def _standing(balance: Balance) -> Standing:
    end = balance.window_end
    return Standing(
        limit=balance.limit_amount,
        spent=balance.spent_amount,
        held=balance.held_amount,
        suspense=balance.suspense_amount,
        overrun=balance.overrun_amount,
        given=balance.given_amount,
        window_ends_at_ms=None if end is None else int(end.timestamp() * 1000),
    )


def _raisers(organization_id: UUID) -> list[Raiser]:
    """Who may raise a limit: owners and admins, owners first."""
    rows: Any = (
        Membership.objects.filter(
            Q(role=Role.OWNER) | Q(role=Role.ADMIN),
            organization_id=organization_id,
            person__is_active=True,
        )
        .order_by("-role", "person__email")
        .values_list("person__name", "person__email", "role")[:RAISERS_SHOWN]
    )
    return [Raiser(*row) for row in rows]
