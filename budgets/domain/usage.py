"""Book usage events and refusals, each exactly once by its id.

1. An event is stored once; a second report of the same id changes nothing. One that says something
   else, or comes from another organization, contradicts it: it is told apart, and changes nothing.
2. What it paid from leases (`parts`) is settled by the reports of those leases, never here.
3. Every other budget that it matches is charged here, by a `usage` transfer: soft and observing
   ones always, a hard one when the call ran without a hold on it, because the budget was younger
   than the call (L12). What a hard limit has no room for is `overrun`: never refused, never hidden.
4. A charge belongs to the window in which the call started.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import Q

from budgets.domain import locks
from budgets.domain.balances import BalanceKey, add_amounts, open_balances
from budgets.domain.rings import RING_FIELDS, count
from budgets.domain.scopes import team_of
from budgets.domain.usagestore import claim, contradicting, receipt_of, store
from budgets.errors import UsageEventError
from budgets.models import Balance, Budget, Refusal, Transfer, UsageEvent
from controlplane.identity.models import Agent
from enforcement.rules import wire
from enforcement.rules.estimate import Used, amount_used
from enforcement.rules.ledger import TransferKind
from enforcement.rules.matching import Matcher, Subject, value_of
from enforcement.rules.money import TokenUsage
from enforcement.rules.policy import BudgetPolicy, Unit
from enforcement.rules.windows import window_at
from enforcement.rules.wire import Outcome, RefusalCount

MAX_SPLIT_CHARS = 200  # of a balance's value
MAX_COUNT = 2**62
MAX_ATTEMPT = 2**31 - 1
OLDEST = timedelta(days=366)  # an event that claims to be older has a broken clock behind it
IDLE_FAILURE = Q(
    outcome=Outcome.UPSTREAM_FAILED.value, input_tokens=0, output_tokens=0, presumed=False
)


class Booked(NamedTuple):
    """How many events were new, how many were known already, and how many cannot be true.

    `contradictions` are the places in the batch of events whose id was booked with other content.
    """

    accepted: int
    duplicates: int
    rejected: int = 0
    contradictions: tuple[int, ...] = ()


class Charge(NamedTuple):
    """What an event adds to a balance that it holds no lease of."""

    event_id: UUID | None
    amount: int
    unheld: bool  # the call held on this balance, and used more than any lease could pay
    at: datetime
    reason: str = ""


@transaction.atomic
def book_usage(
    *,
    organization_id: UUID,
    sidecar_id: UUID | None,
    events: Sequence[wire.UsageEvent],
    now: datetime,
) -> Booked:
    """Store events that are new, and charge them to the balances that no lease pays.

    Raises:
        UsageEventError: an event cannot be true. Nothing of the batch is booked.
    """
    if not events:
        return Booked(0, 0)
    for event in events:
        check_event(event)
    locks.share_budgets(organization_id)
    agents = {
        str(agent.id): agent
        for agent in Agent.objects.select_related("project").filter(
            organization_id=organization_id, id__in={UUID(event.agent) for event in events}
        )
    }
    receipts = [receipt_of(event, organization_id=organization_id) for event in events]
    first: dict[UUID, int] = {}
    for place, receipt in enumerate(receipts):
        first.setdefault(receipt.id, place)
    rows = {
        event_id: _row(
            events[place], agents.get(events[place].agent), sidecar_id=sidecar_id, now=now
        )
        for event_id, place in first.items()
    }
    for row in rows.values():
        row.organization_id = organization_id
    fresh = claim(
        {event_id: receipts[place] for event_id, place in first.items()},
        {event_id: row.started_at for event_id, row in rows.items()},
    )
    store([rows[event_id] for event_id in fresh])
    _charge(
        organization_id, [(rows[event_id], events[first[event_id]]) for event_id in fresh], now=now
    )
    contradictions = contradicting(receipts) if len(fresh) < len(events) else ()
    return Booked(
        accepted=len(fresh),
        duplicates=len(events) - len(fresh) - len(contradictions),
        contradictions=contradictions,
    )


def use_of(unit: Unit, event: UsageEvent) -> int:
    """What a call used in the unit of a budget. One that never reached a model is no request."""
    failed = event.outcome == Outcome.UPSTREAM_FAILED and not event.presumed
    requests = 0 if failed and not event.total_tokens else 1
    used = Used(event.charge_nanos, requests, event.gpu_ms, event.tool_calls)
    return amount_used(unit, tokens_of(event), used)


def tokens_of(event: UsageEvent) -> TokenUsage:
    """The tokens of a recorded call, as the rules of prices and units read them."""
    return TokenUsage(
        input_tokens=event.input_tokens,
        cached_input_tokens=event.cached_input_tokens,
        cache_write_tokens=event.cache_write_tokens,
        output_tokens=event.output_tokens,
        reasoning_tokens=event.reasoning_tokens,
        cache_write_long_tokens=event.cache_write_long_tokens,
        input_audio_tokens=event.input_audio_tokens,
        input_image_tokens=event.input_image_tokens,
        output_audio_tokens=event.output_audio_tokens,
        tier=event.service_tier,
    )


def book_refusals(
    *, organization_id: UUID, refusals: Iterable[RefusalCount], now: datetime
) -> None:
    """Store counts of refused calls, each once by its id."""
    Refusal.objects.bulk_create(
        [
            Refusal(
                id=UUID(refusal.id),
                organization_id=organization_id,
                agent_id=_uuid_or_none(refusal.agent),
                model=_text(refusal.model, 200),
                budget_id=_uuid_or_none(refusal.budget),
                code=_text(refusal.code, 64),
                count=min(refusal.count, MAX_COUNT),
                message=_text(refusal.message, 500),
                at=_instant(refusal.last_at_ms, now=now),
            )
            for refusal in refusals
            if refusal.count > 0 and _uuid_or_none(refusal.id)
        ],
        ignore_conflicts=True,
    )


# ------------------------------------------------------------------------------ storing


def check_event(event: wire.UsageEvent) -> None:
    """Refuse what no sidecar of ours says, before the database must.

    Raises:
        UsageEventError: it cannot be true.
    """
    if _uuid_or_none(event.id) is None or _uuid_or_none(event.agent) is None:
        raise UsageEventError(event.id, "ids must be UUIDs")
    counts = (
        event.input_tokens,
        event.cached_input_tokens,
        event.cache_write_tokens,
        event.output_tokens,
        event.reasoning_tokens,
        event.cache_write_long_tokens,
        event.input_audio_tokens,
        event.input_image_tokens,
        event.output_audio_tokens,
        event.gpu_ms,
        event.tool_calls,
        event.charge_nanos,
        event.duration_ms,
        event.ttft_ms or 0,
        *(part.amount for part in event.parts),
    )
    if not all(0 <= count <= MAX_COUNT for count in counts):
        raise UsageEventError(event.id, "a count is negative or beyond 62 bits")
    if not 0 <= event.attempt <= MAX_ATTEMPT:
        raise UsageEventError(event.id, "no call is tried so often")


def _text(value: str, length: int) -> str:
    """Text as a column can keep it: PostgreSQL has no NUL."""
    return value.replace("\x00", "\ufffd")[:length]


def _row(
    event: wire.UsageEvent, agent: Agent | None, *, sidecar_id: UUID | None, now: datetime
) -> UsageEvent:
    return UsageEvent(
        id=UUID(event.id),
        team_id=team_of(agent) if agent else None,
        project_id=agent.project_id if agent else None,
        agent_id=UUID(event.agent),
        session=_text(event.session, 200),
        user=_text(event.user, 200),
        model=_text(event.model, 200),
        provider=_text(event.provider, 64),
        node=_text(event.node, 200),
        skill=_text(event.skill, 200),
        endpoint=_text(event.endpoint, 64),
        sidecar=sidecar_id,
        started_at=_instant(event.started_at_ms, now=now),
        input_tokens=event.input_tokens,
        cached_input_tokens=event.cached_input_tokens,
        cache_write_tokens=event.cache_write_tokens,
        output_tokens=event.output_tokens,
        reasoning_tokens=event.reasoning_tokens,
        cache_write_long_tokens=event.cache_write_long_tokens,
        input_audio_tokens=event.input_audio_tokens,
        input_image_tokens=event.input_image_tokens,
        output_audio_tokens=event.output_audio_tokens,
        service_tier=_text(event.service_tier, 32),
        gpu_ms=event.gpu_ms,
        tool_calls=event.tool_calls,
        charge_nanos=event.charge_nanos,
        price_version_id=_uuid_or_none(event.price_version),
        outcome=event.outcome.value,
        stream=event.stream,
        tags={_text(k, 200): _text(v, 1000) for k, v in event.tags.items()},
        parts=msgspec.to_builtins(event.parts),
        attempt=event.attempt,
        duration_ms=event.duration_ms,
        ttft_ms=event.ttft_ms,
        finish_reason=_text(event.finish_reason, 64),
        stopped_by=_text(event.stopped_by, 64),
        upstream_id=_text(event.upstream_id, 200),
        presumed=event.presumed,
        estimated=event.estimated,
        source=event.source,
        received_at=now,
    )


def _instant(at_ms: int, *, now: datetime) -> datetime:
    """A sidecar's wall clock, kept within reason: not after its receipt, not from another age."""
    if not 0 <= now.timestamp() * 1000 - at_ms <= OLDEST / timedelta(milliseconds=1):
        return now
    return datetime.fromtimestamp(at_ms // 1000, tz=UTC) + timedelta(milliseconds=at_ms % 1000)


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# ------------------------------------------------------------------------------ charging


def _charge(
    organization_id: UUID, events: list[tuple[UsageEvent, wire.UsageEvent]], *, now: datetime
) -> None:
    budgets = {
        budget.id: budget
        for budget in Budget.objects.filter(
            organization_id=organization_id, archived_at__isnull=True
        )
    }
    matcher = Matcher([budget.to_policy() for budget in budgets.values()])
    charges: dict[BalanceKey, list[Charge]] = defaultdict(list)
    windows: dict[BalanceKey, datetime | None] = {}
    for row, event in events:
        subject = subject_of(organization_id, row)
        for policy in matcher.plan(subject).budgets:
            charge = _charge_of(row, event, policy)
            if charge is not None:
                start, end = window_at(policy.window, row.started_at)
                key = BalanceKey(UUID(policy.id), value_of(policy.per, subject), start)
                charges[key].append(charge)
                windows[key] = end
    balances = open_balances(budgets=budgets, windows=windows, now=now)
    _post(organization_id, charges, balances, now=now)


def subject_of(organization_id: UUID, row: UsageEvent) -> Subject:
    """What a recorded call is attributed to, as budgets match it."""
    return Subject(
        organization=str(organization_id),
        agent=str(row.agent_id),
        team=str(row.team_id) if row.team_id else None,
        project=str(row.project_id) if row.project_id else None,
        session=row.session,
        user=row.user,
        model=row.model,
        provider=row.provider,
        node=row.node,
        skill=row.skill,
        tags={name: value[:MAX_SPLIT_CHARS] for name, value in row.tags.items()},
    )


def _charge_of(row: UsageEvent, event: wire.UsageEvent, policy: BudgetPolicy) -> Charge | None:
    """What an event adds to a budget beside its leases; None when nothing."""
    parts = [part for part in event.parts if part.budget == policy.id]
    if parts:
        loose = sum(part.amount for part in parts if not part.lease and part.amount > 0)
        return Charge(row.id, loose, True, row.started_at) if loose else None
    used = use_of(policy.unit, row)
    return Charge(row.id, used, False, row.started_at) if used else None


def _post(
    organization_id: UUID,
    charges: Mapping[BalanceKey, list[Charge]],
    balances: Mapping[BalanceKey, Balance],
    *,
    now: datetime,
) -> None:
    """Split every charge into what the limit has room for and overrun, and write both down.

    A hard balance gets a row for each event. A soft one gets one for the batch: its events stand
    beside it, and thousands of them a second must not become as many rows for every level above.
    """
    changes: dict[UUID, tuple[int, int]] = defaultdict(lambda: (0, 0))
    turned: dict[UUID, Balance] = {}
    transfers: list[Transfer] = []
    aged: list[Transfer] = []
    for key, items in charges.items():
        balance = balances[key]
        rolling = balance.ring is not None
        for charge in items if balance.hard or rolling else _together(items):
            spent, overrun = changes[balance.id]
            room = room_for(balance, charge.amount, spent=0 if rolling else spent)
            fits = 0 if charge.unheld else room
            over = charge.amount - fits
            if rolling:
                aged += count(balance, at=charge.at, now=now, spent=fits, overrun=over)
                turned[balance.id] = balance
            else:
                changes[balance.id] = (spent + fits, overrun + over)
            transfers += [
                Transfer(
                    organization_id=organization_id,
                    balance=balance,
                    usage_event_id=charge.event_id,
                    kind=kind.value,
                    amount=amount,
                    at=now,
                    reason=charge.reason,
                )
                for kind, amount in ((TransferKind.USAGE, fits), (TransferKind.OVERRUN, over))
                if amount
            ]
    add_amounts({place: change for place, change in changes.items() if any(change)}, now=now)
    Balance.objects.bulk_update(turned.values(), RING_FIELDS)
    Transfer.objects.bulk_create([*transfers, *aged])


def _together(charges: list[Charge]) -> list[Charge]:
    """Several charges of a soft balance as one, and overrun that no lease could pay apart."""
    held = [charge for charge in charges if not charge.unheld]
    if len(held) < 2:
        return charges
    total = sum(charge.amount for charge in held)
    one = Charge(None, total, False, held[0].at, reason=f"{len(held)} calls")
    return [one, *(charge for charge in charges if charge.unheld)]


def room_for(balance: Balance, amount: int, *, spent: int = 0) -> int:
    """How much of a charge becomes spent beside `spent`; the rest is overrun."""
    if not balance.hard:
        return amount
    return max(0, min(amount, balance.limit_amount - balance.committed_amount - spent))
