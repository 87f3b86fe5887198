"""What a recorded call costs at a price: the rule of its first charge, and what was said since.

1. Known usage is charged exactly, rounded up once (`money.charge_nanos`).
2. A presumed call is charged its whole hold: the dearest that its recorded bounds can cost. If the
   engine's context window was part of that bound, the window could have been all prompt.
"""

from collections.abc import Iterable
from uuid import UUID

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from budgets.domain.charging import tokens_of
from budgets.models import PriceVersion, Rating, UsageEvent
from enforcement.rules.estimate import Bound, amount_of
from enforcement.rules.money import ceiling_nanos, charge_nanos
from enforcement.rules.policy import PricePolicy, Unit


def charge_at(event: UsageEvent, price: PricePolicy, *, original: PricePolicy | None) -> int:
    """What a call costs at `price`, in nano-dollars, by the rule that it was charged by.

    `original`: the price that it was charged at, where there was one.

    Raises:
        ValueError: its token counts contradict each other.
    """
    if event.presumed:
        return _whole_hold(event, price, original=original)
    return charge_nanos(tokens_of(event), price)


def _whole_hold(event: UsageEvent, price: PricePolicy, *, original: PricePolicy | None) -> int:
    tokens = {"input_tokens": event.input_tokens, "output_tokens": event.output_tokens}
    counted = original is None or event.charge_nanos == ceiling_nanos(**tokens, price=original)
    window = None if counted else event.total_tokens
    bound = Bound(**tokens, window_tokens=window)
    return amount_of(Unit.USD, bound, output_tokens=event.output_tokens, price=price)


def with_charges(events: QuerySet[UsageEvent]) -> QuerySet[UsageEvent]:
    """Events with `current_nanos`: what each costs now, by its last rating or else as booked."""
    rated = Rating.objects.filter(usage_event=OuterRef("pk")).order_by("-number")
    current = Coalesce(Subquery(rated.values("charge_nanos")[:1]), F("charge_nanos"))
    return events.annotate(current_nanos=current)


def last_ratings(events: Iterable[UUID]) -> dict[UUID, Rating]:
    """The last rating of each event that has any."""
    rows = Rating.objects.filter(usage_event_id__in=list(events))
    last = rows.order_by("usage_event_id", "-number").distinct("usage_event_id")
    return {row.usage_event_id: row for row in last}


def policies_of(versions: Iterable[UUID | None]) -> dict[UUID, PricePolicy]:
    """Price versions as the rules know them, by id."""
    rows = PriceVersion.objects.filter(id__in={one for one in versions if one is not None})
    return {row.id: row.to_policy() for row in rows}
