"""Seeded use is as booked use is."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Count, Sum

from budgets.domain.ratings import charge_at, policies_of
from budgets.domain.rerate import Wish, preview
from budgets.domain.seed import Shape, seed
from budgets.domain.verify import verify
from budgets.errors import SeedError
from budgets.models import UnfoldedUse, UsageCell, UsageEvent, UsageReceipt, UsageRollup
from controlplane.identity.models import Organization

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
SHAPE = Shape(events=1_000, agents=7, projects=3, teams=2)


@pytest.mark.django_db(transaction=True)
def test_seeded_use_is_as_booked_use_is() -> None:
    days: list[int] = []
    assert seed(slug="seed", shape=SHAPE, now=NOW, told=days.append) == 1_000
    assert (len(days), days[-1]) == (90, 1_000)
    events = list(UsageEvent.objects.all())
    assert len(events) == 1_000
    assert min(event.started_at for event in events) >= NOW - timedelta(days=91)
    assert max(event.started_at for event in events) < NOW
    receipts = {row.id: row.started_at for row in UsageReceipt.objects.all()}
    assert receipts == {event.id: event.started_at for event in events}
    prices = policies_of(event.price_version_id for event in events)
    for event in events:
        assert event.price_version_id is not None
        price = prices[event.price_version_id]
        assert event.charge_nanos == charge_at(event, price, original=price)
    assert not UnfoldedUse.objects.exists()
    truth = sum(event.charge_nanos for event in events)
    assert UsageRollup.objects.aggregate(all=Sum("charge_nanos")) == {"all": truth}
    for hours in (1, 24, 168):
        cells = UsageCell.objects.filter(dimensions=0, hours=hours)
        assert cells.aggregate(all=Sum("charge_nanos")) == {"all": truth}
    assert verify().holds
    organization = Organization.objects.get(slug="seed")
    wish = Wish(
        organization_id=organization.id, model="model-*", since=NOW - timedelta(days=95), until=NOW
    )
    found = preview(wish, now=NOW)
    assert (found.calls, found.unchanged) == (1_000, 1_000)
    agents = UsageEvent.objects.values("agent").annotate(calls=Count("id")).order_by("-calls")
    assert len(agents) == 7
    assert agents[0]["calls"] > 2 * agents[6]["calls"], "agents are used unevenly"
    with pytest.raises(SeedError, match="already"):
        seed(slug="seed", shape=SHAPE, now=NOW)
