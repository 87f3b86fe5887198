"""Rates of a self-hosted model on a page: evidence first, then they hold."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from budgets.domain.prices import set_own_price
from budgets.models import PriceVersion
from controlplane.audit.models import AuditEntry
from enforcement.domain.nodecosts import record_cost
from enforcement.models import NodeUsage, ServingNode
from enforcement.rules.policy import Rates
from tests.budgets.world import ACTOR, World
from tests.enforcement.domain.nodes import make_node
from tests.visitors import Visitors

URL = "/prices/measure/"
END = timezone.now().replace(minute=0, second=0, microsecond=0)
START = END - timedelta(hours=2)


@pytest.fixture
def node(world: World) -> ServingNode:
    """Two dollars of cost, 1,000,000 prompt tokens' worth of work: one dollar an hour."""
    made = make_node(world, models=["llama"], created_at=START)
    who: dict[str, Any] = {"organization_id": world.id, "actor": ACTOR, "node_id": made.pk}
    record_cost(**who, cost_per_hour_nanos=10**9, now=timezone.now(), valid_from=START)
    NodeUsage.objects.create(
        node=made, hour=START, prompt_tokens=600_000, generation_tokens=100_000
    )
    return made


def wish(**changes: str) -> dict[str, str]:
    return {
        "model": "llama",
        "since": f"{START:%Y-%m-%dT%H:%M}",
        "until": f"{END:%Y-%m-%dT%H:%M}",
        "answer_weight": "4",
        "cached_weight": "0.1",
        **changes,
    }


def test_evidence_is_shown_and_stays_with_the_rates(node: ServingNode, visitors: Visitors) -> None:
    shown = visitors.admin.post(URL, wish())
    page = shown.content.decode()
    assert shown.context["rates"] == [
        ("Input", "2.00"),
        ("Cached input", "0.20"),
        ("Output", "8.00"),
    ]
    assert shown.context["nodes"][0].per_second == "97.2"
    for said in ("$2.00", "600,000 + 100,000", "nothing is applied yet"):
        assert said in page
    assert PriceVersion.objects.count() == 0
    held = visitors.admin.post(
        URL, wish(apply="yes", shown=shown.context["shown"], reason="first week")
    )
    assert held.status_code == 302
    rate = PriceVersion.objects.get()
    assert (rate.input_nanos_per_mtok, rate.source) == (2 * 10**9, "measured")
    assert rate.evidence == shown.context["evidence"]
    assert AuditEntry.objects.get(action="price.set").reason == "first week"


def test_what_was_not_shown_does_not_hold(node: ServingNode, visitors: Visitors) -> None:
    shown = visitors.admin.post(URL, wish())
    NodeUsage.objects.update(prompt_tokens=900_000)
    late = visitors.admin.post(URL, wish(apply="yes", shown=shown.context["shown"]))
    assert "look at what follows first" in late.content.decode()
    assert PriceVersion.objects.count() == 0


def test_a_jump_needs_a_tick(node: ServingNode, world: World, visitors: Visitors) -> None:
    who: dict[str, Any] = {"organization_id": world.id, "actor": ACTOR}
    set_own_price(**who, model="llama", rates=Rates(10, 10, 10, 10), now=timezone.now())
    shown = visitors.admin.post(URL, wish())
    assert "input rises from" in shown.content.decode()
    wanted = wish(apply="yes", shown=shown.context["shown"])
    assert "confirm the jump" in visitors.admin.post(URL, wanted).content.decode()
    assert PriceVersion.objects.filter(source="measured").count() == 0
    assert visitors.admin.post(URL, wanted | {"confirm": "on"}).status_code == 302
    assert PriceVersion.objects.filter(source="measured").count() == 1


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"model": "other"}, "model", "Select a valid choice"),
        ({"since": "soon"}, "since", "Enter a valid date/time."),
        ({"since": "2026-05-01T00:30"}, "__all__", "Engines' counts are kept by the hour"),
        ({"since": "2001-01-01T00:00"}, "__all__", "At most 92 days are measured at once."),
        ({"until": "2999-01-01T00:00"}, "__all__", "and not in the future."),
        ({"answer_weight": "-1"}, "__all__", "An answer's token weighs more than 0"),
        ({"cached_weight": "1.5"}, "__all__", "A cached token weighs 0 to 1 prompt token."),
        ({"answer_weight": "0.0001"}, "answer_weight", "no more than 3 decimal places"),
        ({"answer_weight": "Infinity"}, "answer_weight", "Enter a number."),
    ],
)
def test_what_cannot_be_measured_is_said(
    node: ServingNode, visitors: Visitors, changes: dict[str, str], field: str, said: str
) -> None:
    response = visitors.admin.post(URL, wish(**changes))
    assert response.status_code == 422
    assert said in response.context["form"].errors[field][0]


def test_a_cost_that_nobody_knows(world: World, visitors: Visitors) -> None:
    make_node(world, models=["llama"], created_at=START)
    response = visitors.admin.post(URL, wish())
    assert response.status_code == 422
    assert "is not known" in response.context["form"].non_field_errors()[0]


def test_without_nodes_the_page_says_what_is_missing(world: World, visitors: Visitors) -> None:
    assert "No node serves a model" in visitors.admin.get(URL).content.decode()
    assert visitors.admin.post(URL, wish()).status_code == 422


def test_viewers_and_strangers_measure_nothing(node: ServingNode, visitors: Visitors) -> None:
    assert visitors.viewer.post(URL, wish()).status_code == 403
    assert visitors.stranger.post(URL, wish()).status_code == 422
    assert "Measure" not in visitors.viewer.get("/prices/").content.decode()
