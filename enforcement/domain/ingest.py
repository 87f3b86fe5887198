"""Usage batches of sidecars: each event and each refusal is booked exactly once.

An event that cannot be read, cannot be true, or says something else under an id that was booked, is
kept aside: the others are booked, and the
sidecar may cut all of them from its spool. So no event can hold up those behind it.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import DataError, IntegrityError, transaction

from budgets.domain.receipts import maybe_forgotten
from budgets.domain.rejected import Rejected, keep_aside
from budgets.domain.usage import Booked, book_checked, book_refusals
from budgets.domain.usagecheck import read_event
from budgets.errors import UsageEventError
from enforcement.models import Sidecar
from enforcement.rules.wire import EncodedUsage, UsageEvent

TOO_OLD = "it is older than what is known of booked events: it may be a repeat of one of them"
# Text that is no UTF-8 is no `MsgspecError`.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UsageEventError)


@transaction.atomic
def take_usage(*, sidecar: Sidecar, usage: EncodedUsage, now: datetime) -> Booked:
    """Book what can be true of a batch, and keep the rest aside."""
    organization_id = sidecar.organization_id
    events, rejected = _read(usage.events)
    events, unsure = _tell_apart(events, now=now)
    rejected += unsure
    booked, refused = book_each(
        organization_id=organization_id, sidecar_id=sidecar.pk, events=events, now=now
    )
    rejected += refused
    keep_aside(
        organization_id=organization_id,
        sidecar_id=sidecar.pk,
        spool=UUID(usage.header.spool),
        events=rejected,
        now=now,
    )
    if usage.refusals:
        book_refusals(organization_id=organization_id, refusals=usage.refusals, now=now)
    return booked._replace(rejected=len(rejected))


def _read(documents: Iterable[msgspec.Raw]) -> tuple[list[UsageEvent], list[Rejected]]:
    """The events that can be true, and the others with what is wrong."""
    events, rejected = [], []
    for document in documents:
        try:
            event = read_event(document)
        except _UNREADABLE as error:
            rejected.append(Rejected(bytes(document), str(error)))
        else:
            events.append(event)
    return events, rejected


def _tell_apart(
    events: list[UsageEvent], *, now: datetime
) -> tuple[list[UsageEvent], list[Rejected]]:
    """The events that are surely new or known, and those that may be repeats of forgotten ones."""
    forgotten = maybe_forgotten((event.id for event in events), now=now)
    if not forgotten:
        return events, []
    unsure = [event for event in events if event.id in forgotten]
    return (
        [event for event in events if event.id not in forgotten],
        [Rejected(msgspec.json.encode(event), TOO_OLD) for event in unsure],
    )


def book_each(
    *,
    organization_id: UUID,
    sidecar_id: UUID | None,
    events: list[UsageEvent],
    now: datetime,
    source: str = "",
) -> tuple[Booked, list[Rejected]]:
    """Checked events all at once; one by one if the database refuses that, as too big a sum."""

    @transaction.atomic
    def book(batch: list[UsageEvent]) -> Booked:
        return book_checked(
            organization_id=organization_id,
            sidecar_id=sidecar_id,
            events=batch,
            now=now,
            source=source,
        )

    try:
        booked = book(events)
        return booked, _contradicting(events, booked)
    except (DataError, IntegrityError):
        accepted, duplicates, contradictions, rejected = 0, 0, [], []
        for place, event in enumerate(events):
            try:
                booked = book([event])
            except (DataError, IntegrityError) as error:
                reason = str(error).partition("\n")[0]
                rejected.append(Rejected(msgspec.json.encode(event), f"not booked: {reason}"))
            else:
                accepted += booked.accepted
                duplicates += booked.duplicates
                contradictions += [place] * len(booked.contradictions)
                rejected += _contradicting([event], booked)
        return Booked(accepted, duplicates, contradictions=tuple(contradictions)), rejected


def _contradicting(events: list[UsageEvent], booked: Booked) -> list[Rejected]:
    reason = "its id was booked with other content, or for another organization"
    return [Rejected(msgspec.json.encode(events[n]), reason) for n in booked.contradictions]
