"""Session trees: a session gives part of its balances to a child session (L14).

1. The rules of giving and coming home are `enforcement.rules.delegation`.
2. A child gets new balances: a session that has begun with its budget's own limit is no child.
3. A child ends by its own word, its parent's, a person's, or when its time is over.
4. Only budgets without a window are delegated: a tree does not outlive its money.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from budgets.domain import locks
from budgets.domain.balances import BalanceKey, find_balances, open_balances
from budgets.domain.incarnation import is_learning
from budgets.enums import LIMIT_TRANSFER, DelegationState, WindowKind
from budgets.errors import (
    DelegationError,
    DelegationNotFoundError,
    NotFreeError,
    StillLearningError,
)
from budgets.models import Balance, Budget, Delegation, Transfer
from controlplane.identity.ids import new_id
from controlplane.identity.models import Agent
from enforcement.rules.delegation import Delegation as Part
from enforcement.rules.delegation import DelegationState as RuleState
from enforcement.rules.delegation import bring_home, end, give
from enforcement.rules.money import parse_usd
from enforcement.rules.policy import Mode, Per, Unit
from enforcement.rules.sessiontree import MAX_DEPTH, Level, Lineage, is_given
from enforcement.rules.windows import EPOCH

MAX_CHILDREN = 1_000  # open ones of one balance
MAX_SESSION_CHARS = 128
LONGEST = timedelta(days=30)
ACTOR = "session tree"
MOVED = [
    *("limit_amount", "cap_amount", "spent_amount", "overrun_amount", "given_amount"),
    *("closed_at", "updated_at"),
]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a session wants to give. `values` are its balances, by the budgets of its plan."""

    parent_agent: UUID
    parent_session: str
    lineage: Lineage | None  # of the parent, if it is a child itself
    values: Mapping[str, str]
    child_session: str
    child_agent: str = ""
    amounts: Mapping[str, str | int]
    percent: int = 0
    expires_in: timedelta = timedelta(hours=1)


class Given(NamedTuple):
    """The tree as the child's token says it, and what it got of each budget."""

    lineage: Lineage
    expires_at: datetime
    amounts: dict[str, tuple[str, int]]  # by budget name: unit and amount


@transaction.atomic
def delegate(*, organization_id: UUID, wish: Wish, now: datetime) -> Given:
    """Give a child session part of what its parent has free.

    Raises:
        DelegationError: it cannot be meant.
        StillLearningError: after a failover, nobody knows yet what is free.
        NotFreeError: the parent has less free; leases out may still come home.
    """
    locks.share_budgets(organization_id)
    _check(wish)
    if is_learning(organization_id):
        raise StillLearningError
    child_agent = _agent(organization_id, wish)
    budgets = _budgets(organization_id, wish)
    parents = _balances(budgets, wish, now=now)
    amounts = _amounts(wish, budgets, parents)
    handle, expires_at = new_id(), now + wish.expires_in
    children = _open_children(budgets, amounts, wish.child_session, now=now)
    depth = (wish.lineage.depth if wish.lineage else 0) + 1
    for budget_id, amount in sorted(amounts.items()):
        parent, child = parents[budget_id], children[budget_id]
        Delegation.objects.create(
            handle=handle,
            organization_id=organization_id,
            budget_id=budget_id,
            parent=parent,
            child=child,
            parent_agent=wish.parent_agent,
            child_agent=child_agent,
            depth=depth,
            amount=amount,
            created_at=now,
            expires_at=expires_at,
        )
        _take_from(parent, budgets[budget_id], amount, now=now)
        _write(child, LIMIT_TRANSFER, amount, now=now, reason=f"from {wish.parent_session}")
    above = (
        wish.lineage.levels
        if wish.lineage
        else [Level(wish.parent_session, str(wish.parent_agent), [])]
    )
    level = Level(wish.child_session, str(child_agent), [str(one) for one in sorted(amounts)])
    told = {budgets[one].name: (budgets[one].unit, amount) for one, amount in amounts.items()}
    return Given(Lineage(str(handle), [level, *above]), expires_at, told)


@transaction.atomic
def end_delegation(
    *, organization_id: UUID, handle: UUID, agent_id: UUID | None, now: datetime
) -> list[Delegation]:
    """End a child session: it gets nothing more, and what it has free comes home.

    `agent_id`: who asks, the parent's or the child's agent; None for a person.

    Raises:
        DelegationNotFoundError: there is none, or it is of other agents.
    """
    found = Delegation.objects.filter(organization_id=organization_id, handle=handle)
    rows = list(found.order_by("id"))
    if agent_id is not None:
        rows = [row for row in rows if agent_id in (row.parent_agent, row.child_agent)]
    if not rows:
        raise DelegationNotFoundError(f"no delegation {handle}")
    for row in rows:
        _close(row.id, now=now)
    return list(found.order_by("id"))


def settle_delegations(*, now: datetime, most: int = 500) -> int:
    """End those whose time is over, and settle those whose money has come home. How many."""
    due = Delegation.objects.filter(expires_at__lte=now) | Delegation.objects.filter(
        state=DelegationState.CLOSING
    )
    places = due.exclude(state=DelegationState.CLOSED).order_by("-depth", "id")
    return sum(
        _settle_one(place, now=now) for place in list(places.values_list("id", flat=True))[:most]
    )


@transaction.atomic
def _settle_one(delegation_id: UUID, *, now: datetime) -> bool:
    return _close(delegation_id, now=now)


# ------------------------------------------------------------------------------ giving


def _check(wish: Wish) -> None:
    name = wish.child_session
    if not 1 <= len(name) <= MAX_SESSION_CHARS or not name.isprintable():
        raise DelegationError(f"a session has 1 to {MAX_SESSION_CHARS} printable characters")
    above = {level.session for level in wish.lineage.levels} if wish.lineage else set()
    if name in above | {wish.parent_session}:
        raise DelegationError("a session cannot be its own child")
    if not wish.parent_session:
        raise DelegationError("say which session gives: x-comptroller-session")
    if wish.lineage is not None and wish.lineage.depth >= MAX_DEPTH:
        raise DelegationError(f"a tree of sessions is at most {MAX_DEPTH} deep")
    if bool(wish.amounts) == bool(wish.percent):
        raise DelegationError("give amounts by budget, or a percent of what is free")
    if wish.percent and not 1 <= wish.percent <= 100:
        raise DelegationError("percent is 1 to 100")
    if not timedelta(seconds=1) <= wish.expires_in <= LONGEST:
        raise DelegationError(f"a delegation lasts 1 second to {LONGEST.days} days")


def _agent(organization_id: UUID, wish: Wish) -> UUID:
    if not wish.child_agent:
        return wish.parent_agent
    agents = Agent.objects.filter(organization_id=organization_id, retired_at__isnull=True)
    for agent_id, slug in agents.values_list("id", "slug"):
        if wish.child_agent in (str(agent_id), slug):
            return agent_id
    raise DelegationError(f"no agent {wish.child_agent!r}")


def _budgets(organization_id: UUID, wish: Wish) -> dict[UUID, Budget]:
    """The budgets that are asked for, or all that the parent has for its session."""
    rows = Budget.objects.filter(
        organization_id=organization_id,
        id__in=[UUID(one) for one in wish.values],
        archived_at__isnull=True,
        mode=Mode.HARD,
        per=Per.SESSION.value,
        window_kind=WindowKind.LIFETIME,
    ).exclude(unit=Unit.CONCURRENCY)
    known = {row.id: row for row in rows}
    if not known:
        raise DelegationError(
            "the session has no hard budget of its own: make one for each session, without a window"
        )
    if not wish.amounts:
        return known
    names = {row.name: row.id for row in known.values()} | {str(one): one for one in known}
    unknown = sorted(set(wish.amounts) - set(names))
    if unknown:
        raise DelegationError(f"the session has no budget {unknown[0]!r} that can be delegated")
    return {names[name]: known[names[name]] for name in wish.amounts}


def _balances(budgets: Mapping[UUID, Budget], wish: Wish, *, now: datetime) -> dict[UUID, Balance]:
    """The parent's balances, locked; made where it has not begun yet, and was not given them."""
    windows = {BalanceKey(one, wish.values[str(one)], EPOCH): None for one in budgets}
    given = {key for key in windows if wish.lineage and is_given(wish.lineage, key.value)}
    if len(list(find_balances(given))) < len(given):
        raise DelegationError("what this session was given is not there any more")
    rows = open_balances(budgets=budgets, windows=windows, now=now)
    return {key.budget_id: balance for key, balance in rows.items()}


def _amounts(
    wish: Wish, budgets: Mapping[UUID, Budget], parents: Mapping[UUID, Balance]
) -> dict[UUID, int]:
    given = {}
    for budget_id, budget in budgets.items():
        free = parents[budget_id].free_amount
        asked = free * wish.percent // 100
        if wish.amounts:
            asked = _amount(budget, wish.amounts.get(str(budget_id), wish.amounts.get(budget.name)))
        if asked <= 0 and wish.amounts:
            raise DelegationError(f"{budget.name}: an amount is above zero")
        if asked > free or asked <= 0:
            raise NotFreeError(budget, free=max(0, free), held=parents[budget_id].held_amount)
        open_ones = parents[budget_id].children.exclude(state=DelegationState.CLOSED)
        if open_ones.count() >= MAX_CHILDREN:
            raise DelegationError(f"a session has at most {MAX_CHILDREN} children at once")
        given[budget_id] = asked
    return given


def _take_from(parent: Balance, budget: Budget, amount: int, *, now: datetime) -> None:
    place = parent.as_rule()
    moved = give(place, amount)
    if moved is None:
        raise NotFreeError(budget, free=max(0, place.free), held=place.held)
    parent.take(place)
    parent.updated_at = now
    parent.save(update_fields=["given_amount", "updated_at"])
    _write(parent, moved.kind.value, moved.amount, now=now)


def _amount(budget: Budget, given: str | int | None) -> int:
    try:
        if budget.unit == Unit.USD:
            return parse_usd(str(given))
        if isinstance(given, int):
            return given
    except ValueError as error:
        raise DelegationError(f"{budget.name}: {error}") from error
    raise DelegationError(f"{budget.name}: give {budget.unit} as an integer")


def _open_children(
    budgets: Mapping[UUID, Budget], amounts: Mapping[UUID, int], session: str, *, now: datetime
) -> dict[UUID, Balance]:
    """New balances of the child, each with what it was given as its limit."""
    taken = Balance.objects.filter(budget_id__in=amounts, value=session)
    if taken.exists():
        raise DelegationError(f"the session {session!r} has begun already: give to a new one")
    fresh = [
        Balance(
            organization_id=budgets[one].organization_id,
            budget_id=one,
            value=session,
            window_start=EPOCH,
            hard=True,
            limit_amount=amount,
            cap_amount=amount,
            delegated=True,
            updated_at=now,
        )
        for one, amount in amounts.items()
    ]
    made = Balance.objects.bulk_create(fresh)
    return {balance.budget_id: balance for balance in made}


# ------------------------------------------------------------------------------ coming home


def _close(delegation_id: UUID, *, now: datetime) -> bool:
    """End a part and everything below it, and bring home what can come."""
    row = Delegation.objects.get(id=delegation_id)
    if row.state == DelegationState.CLOSED:
        return False
    below = Delegation.objects.filter(parent_id=row.child_id)
    for child_id in below.exclude(state=DelegationState.CLOSED).values_list("id", flat=True):
        _close(child_id, now=now)
    balances = _locked([row.parent_id, row.child_id])
    row = Delegation.objects.select_for_update().get(id=delegation_id)
    if row.state == DelegationState.CLOSED:
        return False
    parent, child = balances[row.parent_id], balances[row.child_id]
    part = _part_of(row)
    places = parent.as_rule(), child.as_rule()
    end(part, places[1])
    if not is_learning(row.organization_id):
        for moved in bring_home(part, *places):
            _write(parent, moved.kind.value, moved.amount, now=now)
    row.home_amount, row.spent_amount, row.state = part.home, part.spent, part.state.value
    row.closed_at = now if part.state is RuleState.CLOSED else None
    row.save()
    child.closed_at = child.closed_at or now
    for balance, place in zip((parent, child), places, strict=True):
        balance.take(place)
        balance.updated_at = now
    Balance.objects.bulk_update([parent, child], MOVED)
    return True


def _part_of(row: Delegation) -> Part:
    return Part(
        parent=str(row.parent_id),
        child=str(row.child_id),
        amount=row.amount,
        home=row.home_amount,
        spent=row.spent_amount,
        state=RuleState(row.state),
    )


def _locked(ids: Iterable[UUID]) -> dict[UUID, Balance]:
    rows = Balance.objects.select_for_update(no_key=True).filter(id__in=list(ids)).order_by("id")
    return {row.id: row for row in rows}


def _write(balance: Balance, kind: str, amount: int, *, now: datetime, reason: str = "") -> None:
    Transfer.objects.create(
        organization_id=balance.organization_id,
        balance=balance,
        kind=kind,
        amount=amount,
        at=now,
        actor=ACTOR,
        reason=reason,
    )
