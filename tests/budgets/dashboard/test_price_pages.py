from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from budgets.domain.pricefiles import PriceFormat, read_prices
from budgets.domain.pricelist import PriceKey
from budgets.domain.pricerules import set_rule
from budgets.domain.prices import set_own_price
from budgets.domain.priceversions import span_of
from budgets.domain.usage import book_usage
from budgets.enums import PriceRuleKind
from budgets.models import PriceVersion, Refusal
from enforcement.rules.policy import Rates
from tests.budgets.world import ACTOR, World, call, ms
from tests.visitors import Visitors

Queries = Callable[[int], AbstractContextManager[Any]]


def wish(**changes: str) -> dict[str, str]:
    return {
        "model": "gemma",
        "match": "exact",
        "provider": "",
        "input": "0.05",
        "output": "$0.10",
        "cached_input": "",
        "cache_write": "0",
        "request": "0.000001",
        "reason": "measured",
        **changes,
    }


def make_rate(model: str, **changes: Any) -> PriceVersion:
    values: dict[str, Any] = {
        "model": model,
        "provider": "openai",
        "input_nanos_per_mtok": 1_000_000_000,
        "valid_from": timezone.now() - timedelta(days=1),
        "source": "test",
    }
    return PriceVersion.objects.create(**values | changes)


def test_a_rate_is_set_in_nano_dollars(world: World, visitors: Visitors) -> None:
    assert visitors.admin.post("/prices/new/", wish()).status_code == 302
    rate = PriceVersion.objects.get(own=True)
    assert (rate.input_nanos_per_mtok, rate.output_nanos_per_mtok) == (50_000_000, 100_000_000)
    assert (rate.cached_input_nanos_per_mtok, rate.cache_write_nanos_per_mtok) == (50_000_000, 0)
    assert rate.request_nanos == 1_000


def test_a_rate_that_is_no_amount_is_told_at_its_field(world: World, visitors: Visitors) -> None:
    response = visitors.admin.post("/prices/new/", wish(output="cheap"))
    assert response.status_code == 422
    assert response.context["form"].errors["output"] == ["Write dollars, like 25 or 0.01."]
    assert PriceVersion.objects.count() == 0


def test_models_without_a_price_are_told_loudly(world: World, visitors: Visitors) -> None:
    for count in (2, 3):
        Refusal.objects.create(
            organization=world.organization,
            agent=world.agent,
            model="mixtral",
            code="unpriced_model",
            count=count,
            at=timezone.now(),
        )
    now = timezone.now()
    event = call(world, model="mystery", price_version="", started_at_ms=ms(now) - 1_000)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=now)
    page = visitors.viewer.get("/prices/").content.decode()
    assert "1 call with 120 tokens charged nothing" in page
    assert "5 refused" in page
    assert page.index("mystery") < page.index("mixtral")


def test_rates_say_why_they_are_what_they_are(world: World, visitors: Visitors) -> None:
    make_rate("gpt")
    who = {"organization_id": world.id, "actor": ACTOR, "now": timezone.now()}
    set_rule(**who, kind=PriceRuleKind.DISCOUNT, model="gpt", off_per_mille=125)
    evidence = {
        "since": "2026-05-01T00:00:00+00:00",
        "until": "2026-05-08T00:00:00+00:00",
        "cost": "836.64",
        "prompt_tokens": 5_000_000,
        "answer_tokens": 700,
    }
    set_own_price(**who, model="llama", rates=Rates(5), evidence=evidence, source="measured")
    page = visitors.viewer.get("/prices/").content.decode()
    assert "gpt 12.5 % off" in page
    assert "measured 2026-05-01 to 2026-05-08: $836.64 for 5,000,000 + 700 tokens" in page


def test_the_catalogue_is_searched_by_every_word(world: World, visitors: Visitors) -> None:
    make_rate("gpt-5")
    make_rate("gpt-5-mini")
    make_rate("gpt-5-mini", provider="azure")
    found = visitors.viewer.get("/prices/?q=azure mini").context["rates"]
    assert [(rate.provider, rate.model) for rate in found] == [("azure", "gpt-5-mini")]


def test_only_rates_of_now_are_shown(world: World, visitors: Visitors) -> None:
    now = timezone.now()
    make_rate("old", valid_from=now - timedelta(days=9), valid_to=now - timedelta(days=1))
    make_rate("coming", valid_from=now + timedelta(days=1))
    make_rate("now")
    found = visitors.viewer.get("/prices/").context["rates"]
    assert [rate.model for rate in found] == ["now"]


def test_viewers_and_strangers_set_no_rate(world: World, visitors: Visitors) -> None:
    assert visitors.viewer.post("/prices/new/", wish()).status_code == 403
    visitors.stranger.post("/prices/new/", wish())
    assert PriceVersion.objects.filter(organization=world.organization).count() == 0
    assert "gemma" not in visitors.viewer.get("/prices/").content.decode()


@pytest.mark.parametrize("count", [1, 3])
def test_the_list_asks_as_often_for_three_rates_as_for_one(
    world: World, visitors: Visitors, count: int, django_assert_num_queries: Queries
) -> None:
    for index in range(count):
        make_rate(f"model-{index}")
        make_rate(f"own-{index}", own=True, organization=world.organization)
    with django_assert_num_queries(12):
        assert visitors.viewer.get("/prices/").status_code == 200


def test_the_csv_has_own_rates_first(world: World, visitors: Visitors) -> None:
    make_rate("listed")
    make_rate("mine", own=True, organization=world.organization, provider="")
    lines = visitors.viewer.get("/prices/export.csv").content.decode().splitlines()
    assert [line.split(",")[1] for line in lines] == ["model", "mine", "listed"]
    assert lines[1].split(",")[3] == "1.00"


def test_the_csv_is_what_an_import_reads(world: World, visitors: Visitors) -> None:
    make_rate(
        "mine",
        own=True,
        organization=world.organization,
        kinds={"reasoning": 7},
        variants={"batch": {"input": 5}},
        tiers=[{"above_input_tokens": 9, "rates": {"input": 6}}],
    )
    content = visitors.viewer.get("/prices/export.csv").content
    ((key, (span,)),) = read_prices(content, PriceFormat.CSV).prices.items()
    assert key == PriceKey("openai", "mine", "exact")
    assert span == span_of(PriceVersion.objects.get())
