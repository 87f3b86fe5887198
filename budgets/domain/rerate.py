"""Charge recorded calls again, at the prices that are valid now: new rows, never changed ones.

1. A call's charge is computed by the rule of its first one (`ratings.charge_at`), and the
   *difference* to what it costs so far is booked on every dollar balance that the call was charged
   to: a `correction` where it costs less, a `recharge` where it costs more.
2. What a hard limit has no room for is `overrun`: never refused, never hidden, and people are told.
   Overrun is never taken back: a call is left as it is, and told of, if a balance has not spent as
   much as the call is to give back. Nothing is half done.
3. What a closed child session gives back, or owes, its parent does (L14).
4. A call that is at that version already is skipped: to run it again books nothing, and two
   runs at once book what one does. A batch is a transaction: one run, budgets, balances by id.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from budgets.domain import locks
from budgets.domain.charged import Charged
from budgets.domain.notifications import notify
from budgets.domain.prices import prices_at
from budgets.domain.ratings import charge_at, last_ratings, policies_of
from budgets.domain.rebooking import Rebooking
from budgets.domain.rollups import leave_unfolded
from budgets.domain.usagecheck import MAX_COUNT
from budgets.errors import RerateError
from budgets.models import Balance, PriceVersion, Rating, Transfer, UsageEvent
from controlplane.audit.domain import Actor, record
from enforcement.rules.estimate import price_for
from enforcement.rules.ledger import TransferKind
from enforcement.rules.policy import PricePolicy, Unit

BATCH = 500
KEPT_IDS = 20


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which calls: of a model (a `*` may end its name), begun in `[since, until)`.

    `price_version`: charge at this one; without it, at what is valid now for each call's model.
    """

    organization_id: UUID
    model: str
    since: datetime
    until: datetime
    provider: str = ""
    price_version: UUID | None = None


@dataclass
class Change:
    """What some calls cost more (or less, below zero), in nano-dollars."""

    calls: int = 0
    old_nanos: int = 0
    new_nanos: int = 0

    @property
    def delta_nanos(self) -> int:
        return self.new_nanos - self.old_nanos


@dataclass
class BalanceChange:
    """What a balance has spent and overrun more, or less."""

    calls: int = 0
    spent_nanos: int = 0
    overrun_nanos: int = 0


@dataclass
class Rerating:
    """What was booked, or would be. `calls` = rated + unchanged + those that could not be."""

    calls: int = 0
    unchanged: int = 0  # at that price version already
    unpriced: int = 0  # no price fits its model and provider
    contradictory: int = 0  # its token counts cannot be true, or it would cost more than fits
    short: int = 0  # a balance has spent less than the call is to give back
    left_out: list[UUID] = field(default_factory=list)  # some of the last two kinds
    total: Change = field(default_factory=Change)
    models: dict[str, Change] = field(default_factory=lambda: defaultdict(Change))
    balances: dict[UUID, BalanceChange] = field(default_factory=lambda: defaultdict(BalanceChange))
    planned: dict[UUID, Balance] = field(default_factory=dict)  # of `balances`: not made yet


def preview(wish: Wish, *, now: datetime, most: int | None = None) -> Rerating:
    """What `rerate` would book. Locks nothing, writes nothing; `most`: calls that it may look at.

    Raises:
        RerateError: the wish cannot be meant, or is about more calls; `field` tells which.
    """
    run = _Run(wish, now=now, most=most, write=False)
    books = Rebooking(now=now)
    for batch in run.batches(BATCH):
        run.rate(batch, books)
    return run.result


def rerate(
    wish: Wish,
    *,
    actor: Actor,
    reason: str,
    now: datetime,
    batch: int = BATCH,
    most: int | None = None,
) -> Rerating:
    """Book what the calls cost more or less at the prices of now. Safe to run again.

    Inside a transaction of the caller's, `batch` must be `most`: locks are taken in order once.

    Raises:
        RerateError: no reason is given, or as in `preview`.
    """
    if not reason.strip():
        raise RerateError("reason", "say why")
    run = _Run(wish, now=now, most=most, write=True)
    for events in run.batches(batch):
        run.book(events, actor=actor, reason=reason)
    run.tell(actor=actor, reason=reason)
    return run.result


@dataclass(frozen=True)
class _Rated:
    """A call at another price, and what that moves on each balance."""

    event: UsageEvent
    number: int
    old_version: UUID | None
    new_version: UUID
    change: Change
    moved: dict[UUID, dict[str, int]] = field(default_factory=dict)


class _Run:
    """One run over the calls of a wish, and what it has found so far."""

    def __init__(self, wish: Wish, *, now: datetime, most: int | None, write: bool) -> None:
        if not wish.model.strip(" *"):
            raise RerateError("model", "name a model; a `*` may end the name")
        if wish.since >= wish.until:
            raise RerateError("until", "it must be after since")
        self._wish = wish
        self._now = now
        self._prices = _prices(wish, now=now)
        self._known: dict[tuple[str, str], PricePolicy | None] = {}
        self._charged = Charged(wish.organization_id, unit=Unit.USD, now=now, write=write)
        self.result = Rerating()
        if most is not None and self._events()[: most + 1].count() > most:
            raise RerateError(
                "since", f"more than {most:,} calls: take less time, or use the command"
            )

    def batches(self, size: int) -> Iterator[list[UsageEvent]]:
        """The calls in the order of their start."""
        after: UsageEvent | None = None
        while True:
            rows = self._events()
            if after is not None:
                later = Q(started_at=after.started_at, id__gt=after.id)
                rows = rows.filter(Q(started_at__gt=after.started_at) | later)
            batch = list(rows.order_by("started_at", "id")[:size])
            if not batch:
                return
            yield batch
            after = batch[-1]

    @transaction.atomic
    def book(self, batch: Sequence[UsageEvent], *, actor: Actor, reason: str) -> None:
        """Rate a batch and write it down, alone in the organization."""
        organization_id = self._wish.organization_id
        locks.rate_alone(organization_id)
        locks.share_budgets(organization_id)
        books = Rebooking(now=self._now, locked=True)
        rated = self.rate(batch, books)
        ratings = [_rating(one, actor=actor, reason=reason, now=self._now) for one in rated]
        Rating.objects.bulk_create(ratings)
        leave_unfolded([rating.id for rating in ratings], now=self._now)
        books.save()
        Transfer.objects.bulk_create(
            _transfer(rating, balance_id, kind, amount)
            for one, rating in zip(rated, ratings, strict=True)
            for balance_id, moved in one.moved.items()
            for kind, amount in moved.items()
        )

    def rate(self, batch: Sequence[UsageEvent], books: Rebooking) -> list[_Rated]:
        """The calls of a batch that cost something else now, moved in the books."""
        ratings = last_ratings(event.id for event in batch)
        originals = policies_of(event.price_version_id for event in batch if event.presumed)
        due = [
            one
            for event in batch
            if (one := self._due(event, ratings.get(event.id), originals)) is not None
        ]
        places = self._charged.places(
            [one.event for one in due],
            growing={one.event.id for one in due if one.change.delta_nanos > 0},
        )
        ids = {place.balance_id for found in places.values() for place in found}
        self.result.planned = self._charged.planned
        books.open(ids, planned=self._charged.planned)
        rated = []
        for one in due:
            delta = one.change.delta_nanos
            moved = books.move(places[one.event.id], delta) if delta else {}
            if moved is None:
                self.result.short += 1
                self._leave_out(one.event)
                continue
            one.moved.update(moved)
            rated.append(one)
            self._count(one)
        return rated

    def _due(
        self, event: UsageEvent, last: Rating | None, originals: Mapping[UUID, PricePolicy]
    ) -> _Rated | None:
        """A call at the price of now; None if it is there already, or cannot be."""
        result, price = self.result, self._price(event)
        result.calls += 1
        version = last.price_version_id if last else event.price_version_id
        old = last.charge_nanos if last else event.charge_nanos
        if price is None:
            result.unpriced += 1
            return None
        if version is not None and str(version) == price.id:
            result.unchanged += 1
            return None
        original = originals.get(event.price_version_id) if event.price_version_id else None
        try:
            new = charge_at(event, price, original=original)
        except ValueError:
            new = MAX_COUNT + 1
        if new > MAX_COUNT:
            result.contradictory += 1
            self._leave_out(event)
            return None
        number = last.number + 1 if last else 1
        return _Rated(event, number, version, UUID(price.id), Change(1, old, new))

    def _leave_out(self, event: UsageEvent) -> None:
        if len(self.result.left_out) < KEPT_IDS:
            self.result.left_out.append(event.id)

    def _count(self, one: _Rated) -> None:
        for change in (self.result.total, self.result.models[one.event.model]):
            change.calls += 1
            change.old_nanos += one.change.old_nanos
            change.new_nanos += one.change.new_nanos
        for balance_id, moved in one.moved.items():
            seen = self.result.balances[balance_id]
            seen.calls += 1
            seen.spent_nanos += moved.get(TransferKind.RECHARGE.value, 0)
            seen.spent_nanos -= moved.get(TransferKind.CORRECTION.value, 0)
            seen.overrun_nanos += moved.get(TransferKind.OVERRUN.value, 0)

    def _price(self, event: UsageEvent) -> PricePolicy | None:
        key = (event.model, event.provider)
        if key not in self._known:
            self._known[key] = price_for(self._prices, model=key[0], provider=key[1])
        return self._known[key]

    def _events(self) -> QuerySet[UsageEvent]:
        wish = self._wish
        rows = UsageEvent.objects.filter(
            organization_id=wish.organization_id,
            started_at__gte=wish.since,
            started_at__lt=wish.until,
        )
        if wish.provider:
            rows = rows.filter(provider=wish.provider)
        if wish.model.endswith("*"):
            return rows.filter(model__startswith=wish.model[:-1])
        return rows.filter(model=wish.model)

    @transaction.atomic
    def tell(self, *, actor: Actor, reason: str) -> None:
        """The audit entry of a run that booked something, and the alarm of what is past a limit."""
        result, wish = self.result, self._wish
        if not result.total.calls:
            return
        record(
            organization_id=wish.organization_id,
            actor=actor,
            action="price.rerate",
            object_kind="model",
            object_id=wish.model,
            reason=reason,
            before={"charge_nanos": result.total.old_nanos},
            after={
                "charge_nanos": result.total.new_nanos,
                "calls": result.total.calls,
                "since": wish.since.isoformat(),
                "until": wish.until.isoformat(),
                "left_out": result.short + result.contradictory + result.unpriced,
            },
            now=self._now,
        )
        over = [row for row in result.balances.values() if row.overrun_nanos]
        if over:
            notify(
                organization_id=wish.organization_id,
                title=f"{wish.model} costs more: {len(over)} balances are past their limit",
                body=f"{reason}. What had no room is counted as overrun.",
                now=self._now,
            )


def _prices(wish: Wish, *, now: datetime) -> list[PricePolicy]:
    if wish.price_version is None:
        rows = prices_at(organization_id=wish.organization_id, now=now)
        return [row.to_policy() for row in rows]
    owners = Q(organization=None) | Q(organization_id=wish.organization_id)
    version = PriceVersion.objects.filter(owners, id=wish.price_version).first()
    if version is None:
        raise RerateError("price_version", f"no price version {wish.price_version}")
    return [version.to_policy()]


def _rating(one: _Rated, *, actor: Actor, reason: str, now: datetime) -> Rating:
    return Rating(
        organization_id=one.event.organization_id,
        usage_event_id=one.event.id,
        started_at=one.event.started_at,
        number=one.number,
        old_price_version_id=one.old_version,
        price_version_id=one.new_version,
        old_charge_nanos=one.change.old_nanos,
        charge_nanos=one.change.new_nanos,
        at=now,
        actor=actor.label,
        reason=reason,
    )


def _transfer(rating: Rating, balance_id: UUID, kind: str, amount: int) -> Transfer:
    """The journal's chain covers the reason: both price versions stand in it."""
    old = rating.old_price_version_id or "no price"
    return Transfer(
        organization_id=rating.organization_id,
        balance_id=balance_id,
        usage_event_id=rating.usage_event_id,
        rating=rating,
        kind=kind,
        amount=amount,
        at=rating.at,
        actor=rating.actor,
        reason=f"{old} → {rating.price_version_id}: {rating.reason}"[:500],
    )
