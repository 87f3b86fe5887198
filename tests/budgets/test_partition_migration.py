"""What was booked before there were partitions stands in them afterwards, and back."""

from datetime import timedelta

import pytest
from django.core.management import call_command

from budgets.domain.usage import Booked, book_usage
from budgets.models import UsageEvent, UsageReceipt
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, call, make_world, ms

# The columns that there were before partitions.
COLUMNS = [field.attname for field in UsageEvent._meta.concrete_fields if field.attname != "source"]


@pytest.mark.django_db(transaction=True)
def test_rows_move_into_partitions_and_back() -> None:
    world = make_world()
    events = [call(world, started_at_ms=ms(NOW - timedelta(days=days))) for days in (0, 1, 40)]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)
    before = list(UsageEvent.objects.order_by("id").values(*COLUMNS))
    try:
        call_command("migrate", "budgets", "0013", verbosity=0)
        assert list(UsageEvent.objects.order_by("id").values(*COLUMNS)) == before
        with refused_by("usage_event_append_only"):
            sql("DELETE FROM budgets_usageevent WHERE id = %s", events[0].id)
    finally:
        call_command("migrate", "budgets", verbosity=0)
    assert list(UsageEvent.objects.order_by("id").values(*COLUMNS)) == before
    assert list(UsageReceipt.objects.values_list("digest").distinct()) == [(None,)]
    again = book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)
    assert again == Booked(0, 3)
