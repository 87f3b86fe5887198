"""What of a budget is out at this moment, with whom, and how far past its cap that could lead."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet
from msgspec.structs import replace

from budgets.domain.prices import price_policies
from budgets.domain.scopes import team_of
from budgets.enums import LIVE_LEASE_STATES
from budgets.models import Balance, Budget, Lease
from budgets.queries import current_balances
from controlplane.identity.models import Agent
from enforcement.models import Spool
from enforcement.queries import running_sessions
from enforcement.rules.bound import Stream, worst_case
from enforcement.rules.estimate import price_for
from enforcement.rules.matching import Subject, matches
from enforcement.rules.policy import BudgetPolicy, HoldMode, Mode, PricePolicy, Unit
from enforcement.rules.wire import SessionInfo

_TOLD = ("model", "node")  # the facts that books tell of running calls, beside the session
BALANCES_SHOWN = 200
LEASES_SHOWN = 1_000


@dataclass(frozen=True)
class Assumptions:
    """What the bound of a metered budget takes for granted of engines; see docs/guarantees.md."""

    tokens_per_second: int = 200
    stop_ms: int = 100  # metering and abort together
    chunk_tokens: int = 1
    margin_tokens: int = 64


@dataclass(frozen=True)
class Holder:
    """One live lease: who has it, how much, and until when."""

    lease: Lease
    book: str
    sidecar: str


@dataclass(frozen=True)
class BalanceExposure:
    balance: Balance
    holders: list[Holder]


@dataclass(frozen=True)
class BudgetExposure:
    """All current balances of a budget. `past_cap` is in nano-dollars; None where no formula is."""

    budget: Budget
    balances: list[BalanceExposure]
    running_streams: int
    assumptions: Assumptions
    past_cap: int | None


def budget_exposure(
    budget: Budget, *, now: datetime, assumptions: Assumptions | None = None
) -> BudgetExposure:
    """The exposure of a budget now, its fullest-held balances first."""
    taken = assumptions or Assumptions()
    rows = current_balances(budget.organization, now=now).filter(budget=budget)
    balances = list(rows.order_by("-held_amount", "-suspense_amount", "id")[:BALANCES_SHOWN])
    holders = _holders(Lease.objects.filter(balance__in=[balance.id for balance in balances]))
    streams = _streams(budget, now=now) if budget.hold_mode == HoldMode.METERED else []
    return BudgetExposure(
        budget=budget,
        balances=[BalanceExposure(one, holders.get(one.id, [])) for one in balances],
        running_streams=len(streams),
        assumptions=taken,
        past_cap=_past_cap(budget, streams, taken, now=now),
    )


def _holders(leases: QuerySet[Lease]) -> dict[UUID, list[Holder]]:
    live = list(
        leases.select_related("balance__budget")
        .filter(state__in=LIVE_LEASE_STATES)
        .order_by("expires_at")[:LEASES_SHOWN]
    )
    spools = Spool.objects.filter(id__in={lease.spool for lease in live})
    known = {spool.id: spool for spool in spools.select_related("sidecar")}
    found: dict[UUID, list[Holder]] = {}
    for lease in live:
        spool = known.get(lease.spool)
        holder = Holder(lease, spool.book if spool else "", spool.sidecar.name if spool else "")
        found.setdefault(lease.balance_id, []).append(holder)
    return found


def _streams(budget: Budget, *, now: datetime) -> list[SessionInfo]:
    """The running calls that the budget may count, one for each call."""
    policy = budget.to_policy()
    sessions = running_sessions(budget.organization, now=now)
    agents = Agent.objects.select_related("project").filter(
        organization_id=budget.organization_id, id__in={session.agent for session in sessions}
    )
    by_id = {str(agent.id): agent for agent in agents}
    return [
        session
        for session in sessions
        if (agent := by_id.get(session.agent)) is not None
        and _may_count(policy, _subject(agent, session))
        for _ in range(session.running)
    ]


def _may_count(policy: BudgetPolicy, subject: Subject) -> bool:
    """Whether a running call can be one of the budget's: what books do not tell of it may fit."""
    told = {name: patterns for name, patterns in policy.filters.items() if name in _TOLD}
    return matches(replace(policy, filters=told), subject)


def _subject(agent: Agent, session: SessionInfo) -> Subject:
    team = team_of(agent)
    return Subject(
        organization=str(agent.organization_id),
        agent=str(agent.id),
        team=str(team) if team else None,
        project=str(agent.project_id) if agent.project_id else None,
        session=session.session,
        model=session.model,
        node=session.node,
    )


def _past_cap(
    budget: Budget, streams: list[SessionInfo], taken: Assumptions, *, now: datetime
) -> int | None:
    if budget.mode != Mode.HARD:
        return None
    if budget.hold_mode == HoldMode.STRICT:
        return 0
    if budget.unit != Unit.USD:
        return None
    models = {stream.model for stream in streams}
    prices = price_policies(organization_id=budget.organization_id, now=now, models=models)
    rates = {model: _dearest(price_for(prices, model=model)) for model in models}
    return worst_case(_stream(rates[stream.model], taken) for stream in streams)


def _dearest(price: PricePolicy | None) -> int:
    """The highest output rate that a call of the model can pay."""
    if price is None:
        return 0
    return max(price.rates.output, *(tier.rates.output for tier in price.tiers), 0)


def _stream(rate: int, taken: Assumptions) -> Stream:
    return Stream(
        price_nanos_per_mtok=rate,
        tokens_per_second=taken.tokens_per_second,
        meter_us=0,
        abort_us=taken.stop_ms * 1_000,
        chunk_tokens=taken.chunk_tokens,
        margin_nanos=rate * taken.margin_tokens // 1_000_000,
    )
