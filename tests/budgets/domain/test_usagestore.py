"""Usage events stand in the partition of the day on which they started."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from budgets.domain.usage import Booked, book_usage
from budgets.domain.usagestore import DAYS_AHEAD, prepare_partitions
from budgets.models import UsageEvent
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import World, call, ms

EVE = datetime(2031, 5, 6, 23, 59, 59, 999_000, tzinfo=UTC)
LATER = EVE + timedelta(days=10)


def partitions() -> dict[str, int]:
    """The rows of each partition that has some."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text, count(*) FROM budgets_usageevent GROUP BY 1 ORDER BY 1"
        )
        return dict(cursor.fetchall())


def test_each_utc_day_has_its_own_made_on_demand(world: World) -> None:
    starts = (EVE, EVE + timedelta(milliseconds=1), EVE + timedelta(hours=5))
    events = [call(world, started_at_ms=ms(at)) for at in starts]
    booked = book_usage(organization_id=world.id, sidecar_id=None, events=events, now=LATER)
    assert booked == Booked(3, 0)
    assert partitions() == {"budgets_usageevent_20310506": 1, "budgets_usageevent_20310507": 2}


def test_they_are_made_ahead_once(world: World) -> None:
    assert prepare_partitions(now=EVE) == DAYS_AHEAD + 1
    assert prepare_partitions(now=EVE) == 0
    assert prepare_partitions(now=EVE + timedelta(days=1)) == 1


def test_no_default_partition_collects(world: World) -> None:
    event = call(world, started_at_ms=ms(EVE))
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=LATER)
    row = UsageEvent.objects.get()
    row.started_at = EVE - timedelta(days=1)
    with pytest.raises(IntegrityError, match="no partition"), transaction.atomic():
        row.save(force_insert=True)


def test_a_partition_is_append_only_too(world: World) -> None:
    event = call(world, started_at_ms=ms(EVE))
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=LATER)
    with refused_by("usage_event_append_only"):
        sql("UPDATE budgets_usageevent_20310506 SET charge_nanos = 0 WHERE id = %s", event.id)
    with refused_by("usage_event_append_only"):
        sql("DELETE FROM budgets_usageevent_20310506 WHERE id = %s", event.id)


TEXTS = [
    "a,b",
    'quo"te',
    "back\\slash",
    "\\n",
    "line\r\nend",
    "tab\t",
    "null",
    "\\.",
    "[é]",
    "]\n[",
]


@pytest.mark.parametrize("others", [0, 1])
def test_text_comes_back_as_it_was_said(world: World, others: int) -> None:
    events = [
        call(world, started_at_ms=ms(EVE), session=text, node=text, tags={text: text})
        for text in (*TEXTS, *["plain"] * others)
    ]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=LATER)
    rows = {str(row.id): (row.session, row.node, row.tags) for row in UsageEvent.objects.all()}
    assert rows == {event.id: (event.session, event.node, event.tags) for event in events}
