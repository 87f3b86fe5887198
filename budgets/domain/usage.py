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
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from budgets.domain import locks
from budgets.domain.balances import BalanceKey, add_amounts, open_balances
from budgets.domain.rings import RING_FIELDS, count
from budgets.domain.scopes import team_of
from budgets.domain.usagerows import (
    Entry,
    Owner,
    canonical,
    instant_of,
    mended,
    text,
    uuid_text,
)
from budgets.domain.usagestore import Receipt, claim, contradicting, digest_of, store, within_table
from budgets.errors import UsageEventError
from budgets.models import Balance, Budget, Refusal, Transfer, UsageEvent
from controlplane.identity.models import Agent
from enforcement.rules import wire
from enforcement.rules.estimate import Used, amounts_used
from enforcement.rules.ledger import TransferKind
from enforcement.rules.matching import Matcher, Subject, value_of
from enforcement.rules.money import TokenUsage
from enforcement.rules.policy import BudgetPolicy, Unit
from enforcement.rules.windows import Window, window_at
from enforcement.rules.wire import Outcome, RefusalCount

MAX_SPLIT_CHARS = 200  # of a balance's value
MAX_COUNT = 2**62
MAX_ATTEMPT = 2**31 - 1
_COUNTS = attrgetter(
    *("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens"),
    *("reasoning_tokens", "cache_write_long_tokens", "input_audio_tokens", "input_image_tokens"),
    *("output_audio_tokens", "gpu_ms", "tool_calls", "charge_nanos", "duration_ms"),
)
IDLE_FAILURE = Q(
    outcome=Outcome.UPSTREAM_FAILED.value, input_tokens=0, output_tokens=0, presumed=False
)


Call = UsageEvent | wire.UsageEvent  # as booked, or as it is told


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

    event_id: str | None
    amount: int
    unheld: bool  # the call held on this balance, and used more than any lease could pay
    at: datetime
    reason: str = ""


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
    for event in events:
        check_event(event)
    return book_checked(
        organization_id=organization_id, sidecar_id=sidecar_id, events=events, now=now
    )


@transaction.atomic
def book_checked(
    *,
    organization_id: UUID,
    sidecar_id: UUID | None,
    events: Sequence[wire.UsageEvent],
    now: datetime,
    source: str = "",
) -> Booked:
    """The same, of events that passed `check_event` already.

    `source`: which receiver was told of them; empty where a sidecar metered them.
    """
    if not events:
        return Booked(0, 0)
    locks.share_budgets(organization_id)
    documents = [canonical(event) for event in events]
    said = [mended(event, document) for event, document in zip(events, documents, strict=True)]
    starts = within_table([instant_of(one.started_at_ms, now=now) for one in said], now=now)
    receipts = [
        Receipt(event.id, start, digest_of(document))
        for event, start, document in zip(said, starts, documents, strict=True)
    ]
    first: dict[str, int] = {}
    for place, receipt in enumerate(receipts):
        first.setdefault(receipt.id, place)
    fresh = claim([receipts[place] for place in first.values()], organization_id=organization_id)
    new = {place for event_id, place in first.items() if event_id in fresh}
    if new:
        owners = _owners(organization_id, said)
        nobody = Owner(str(organization_id))
        entries = [
            Entry(said[place], owners.get(said[place].agent, nobody), receipts[place].started_at)
            for place in sorted(new)
        ]
        store(entries, sidecar_id=sidecar_id, now=now, source=source)
        _charge(organization_id, entries, now=now)
    known = {place: receipt for place, receipt in enumerate(receipts) if place not in new}
    astray = contradicting(known, organization_id=organization_id) if known else ()
    return Booked(len(new), len(known) - len(astray), contradictions=astray)


def _owners(organization_id: UUID, events: Iterable[wire.UsageEvent]) -> dict[str, Owner]:
    """Where the agents of these events stand; those of other organizations are not found."""
    agents = Agent.objects.select_related("project").filter(
        organization_id=organization_id, id__in={event.agent for event in events}
    )
    return {
        str(agent.id): _owner(organization_id, team_of(agent), agent.project_id) for agent in agents
    }


def _owner(organization_id: UUID, team_id: UUID | None, project_id: UUID | None) -> Owner:
    team, project = (str(one) if one else None for one in (team_id, project_id))
    return Owner(str(organization_id), team, project)


def uses_of(event: Call) -> dict[Unit, int]:
    """What a call used in every unit. One that never reached a model is no request."""
    failed = event.outcome == Outcome.UPSTREAM_FAILED and not event.presumed
    requests = 0 if failed and not event.input_tokens + event.output_tokens else 1
    used = Used(event.charge_nanos, requests, event.gpu_ms, event.tool_calls)
    return amounts_used(tokens_of(event), used)


def tokens_of(event: Call) -> TokenUsage:
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
                agent_id=uuid_text(refusal.agent) or None,
                model=text(refusal.model, 200),
                budget_id=uuid_text(refusal.budget) or None,
                code=text(refusal.code, 64),
                count=min(refusal.count, MAX_COUNT),
                message=text(refusal.message, 500),
                at=instant_of(refusal.last_at_ms, now=now),
            )
            for refusal in refusals
            if refusal.count > 0 and uuid_text(refusal.id)
        ],
        ignore_conflicts=True,
    )


# ------------------------------------------------------------------------------ storing


def check_event(event: wire.UsageEvent) -> None:
    """Refuse what no sidecar of ours says, before the database must.

    Raises:
        UsageEventError: it cannot be true.
    """
    if not uuid_text(event.id) or not uuid_text(event.agent):
        raise UsageEventError(event.id, "ids must be UUIDs")
    counts = (*_COUNTS(event), event.ttft_ms or 0, *[part.amount for part in event.parts])
    if min(counts) < 0 or max(counts) > MAX_COUNT:
        raise UsageEventError(event.id, "a count is negative or beyond 62 bits")
    if not 0 <= event.attempt <= MAX_ATTEMPT:
        raise UsageEventError(event.id, "no call is tried so often")


# ------------------------------------------------------------------------------ charging


def _charge(organization_id: UUID, entries: Sequence[Entry], *, now: datetime) -> None:
    budgets = {
        budget.id: budget
        for budget in Budget.objects.filter(
            organization_id=organization_id, archived_at__isnull=True
        )
    }
    matcher = Matcher([budget.to_policy() for budget in budgets.values()])
    windows = _Windows()
    found: dict[tuple[str, str, datetime], list[Charge]] = defaultdict(list)
    for entry in entries:
        event = entry.event
        subject = _subject(entry.owner, event.agent, event)
        paid = {part.budget for part in event.parts}
        uses: dict[Unit, int] = {}
        for policy in matcher.plan(subject).budgets:
            if policy.id in paid:
                amount, unheld = _loose(event, policy), True
            else:
                uses = uses or uses_of(event)
                amount, unheld = uses[policy.unit], False
            if amount:
                start = windows.at(policy, entry.started_at)[0]
                charge = Charge(event.id, amount, unheld, entry.started_at)
                found[policy.id, value_of(policy.per, subject), start].append(charge)
    charges = {BalanceKey(UUID(key[0]), *key[1:]): items for key, items in found.items()}
    ends = {BalanceKey(UUID(key[0]), *key[1:]): windows.ends[key[0], key[2]] for key in found}
    balances = open_balances(budgets=budgets, windows=ends, now=now)
    _post(organization_id, charges, balances, now=now)


class _Windows:
    """The windows that calls of a batch fell into: mostly the one of the call before."""

    def __init__(self) -> None:
        self.ends: dict[tuple[str, datetime], datetime | None] = {}
        self._last: dict[str, Window] = {}

    def at(self, policy: BudgetPolicy, instant: datetime) -> Window:
        last = self._last.get(policy.id)
        if last is None or instant < last[0] or (last[1] is not None and instant >= last[1]):
            last = self._last[policy.id] = window_at(policy.window, instant)
            self.ends[policy.id, last[0]] = last[1]
        return last


def subject_of(organization_id: UUID, row: UsageEvent) -> Subject:
    """What a recorded call is attributed to, as budgets match it."""
    owner = _owner(organization_id, row.team_id, row.project_id)
    return _subject(owner, str(row.agent_id), row)


def _subject(owner: Owner, agent: str, call: Call) -> Subject:
    return Subject(
        organization=owner.organization_id,
        agent=agent,
        team=owner.team_id,
        project=owner.project_id,
        session=call.session,
        user=call.user,
        model=call.model,
        provider=call.provider,
        node=call.node,
        skill=call.skill,
        tags={name: value[:MAX_SPLIT_CHARS] for name, value in call.tags.items()},
    )


def _loose(event: wire.UsageEvent, policy: BudgetPolicy) -> int:
    """What a call used of a budget that it held leases of, and that none of them could pay."""
    return sum(part.amount for part in event.parts if part.budget == policy.id and not part.lease)


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
                    usage_event_id=UUID(charge.event_id) if charge.event_id else None,
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
