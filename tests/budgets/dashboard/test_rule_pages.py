"""Aliases and discounts on the page of prices: set, shown, ended or withdrawn."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from budgets.models import PriceRule, PriceVersion
from controlplane.audit.models import AuditEntry
from tests.budgets.dashboard.test_price_pages import make_rate
from tests.budgets.world import World
from tests.visitors import Visitors

ALIAS, DISCOUNT = "/prices/aliases/new/", "/prices/discounts/new/"


@pytest.fixture(autouse=True)
def catalogue(world: World) -> None:
    make_rate("gpt", output_nanos_per_mtok=2_000_000_000)


def alias(**changes: str) -> dict[str, str]:
    return {"model": "house-*", "target_model": "gpt", **changes}


def discount(**changes: str) -> dict[str, str]:
    return {"model": "gpt*", "provider": "openai", "percent": "12.5", **changes}


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 422
    return {name: list(said) for name, said in response.context["form"].errors.items()}


def test_an_alias_prices_names_by_their_beginning(world: World, visitors: Visitors) -> None:
    assert visitors.admin.post(ALIAS, alias(reason="one name")).status_code == 302
    rate = PriceVersion.objects.get(own=True)
    assert (rate.model, rate.match, rate.output_nanos_per_mtok) == ("house-", "prefix", 2 * 10**9)
    page = visitors.viewer.get("/prices/").content.decode()
    assert "house-* like gpt" in page
    assert "one name" in page
    entry = AuditEntry.objects.get(action="price.rule.set")
    assert (entry.actor_label, entry.reason) == ("Acme Admin", "one name")


def test_a_discount_is_in_tenths_of_a_percent(world: World, visitors: Visitors) -> None:
    assert visitors.admin.post(DISCOUNT, discount()).status_code == 302
    assert PriceRule.objects.get().off_per_mille == 125
    assert PriceVersion.objects.get(own=True).output_nanos_per_mtok == 1_750_000_000


def test_instants_are_those_of_the_organization(world: World, visitors: Visitors) -> None:
    world.organization.time_zone = "Europe/Berlin"
    world.organization.save()
    visitors.admin.post(DISCOUNT, discount(valid_to="2999-07-01T00:00"))
    assert PriceRule.objects.get().valid_to == datetime(2999, 6, 30, 22, tzinfo=UTC)


def test_a_rule_is_ended_and_one_to_come_is_withdrawn(world: World, visitors: Visitors) -> None:
    visitors.admin.post(ALIAS, alias())
    visitors.admin.post(DISCOUNT, discount(valid_from="2999-07-01T00:00"))
    page = visitors.admin.get("/prices/").content.decode()
    assert page.count("Yes, end") == 1
    assert page.count("Yes, withdraw") == 1
    for rule in PriceRule.objects.all():
        assert visitors.admin.post(f"/prices/rules/{rule.id}/end/").status_code == 302
    withdrawn = PriceRule.objects.get(kind="discount")
    assert withdrawn.valid_to == withdrawn.valid_from
    assert AuditEntry.objects.filter(action="price.rule.end").count() == 2
    assert "No alias and no discount" in visitors.viewer.get("/prices/").content.decode()
    assert visitors.admin.post(f"/prices/rules/{withdrawn.id}/end/").status_code == 404


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"percent": "0"}, "percent", "A discount is more than 0 and less than 100 percent."),
        ({"percent": "100"}, "percent", "A discount is more than 0 and less than 100 percent."),
        ({"percent": "1.55"}, "percent", "no more than 1 decimal place"),
        ({"percent": "NaN"}, "percent", "Enter a number."),
        ({"model": "nobody"}, "model", "No price is known that rates could follow from."),
        ({"model": ""}, "model", "This field is required."),
        ({"model": "a\x00b"}, "model", "Null characters are not allowed."),
        ({"valid_from": "2001-01-01T00:00"}, "valid_from", "A rule cannot begin in the past."),
        ({"valid_to": "2001-01-01T00:00"}, "valid_to", "A rule must end after it begins."),
        ({"valid_to": "soon"}, "valid_to", "Enter a valid date/time."),
    ],
)
def test_mistakes_are_told_at_their_field(
    world: World, visitors: Visitors, changes: dict[str, str], field: str, said: str
) -> None:
    assert said in errors(visitors.admin.post(DISCOUNT, discount(**changes)))[field][0]
    assert PriceRule.objects.count() == 0


def test_a_time_that_no_calendar_of_the_database_has(world: World, visitors: Visitors) -> None:
    world.organization.time_zone = "America/New_York"
    world.organization.save()
    found = errors(visitors.admin.post(ALIAS, alias(valid_to="9999-12-31T23:00")))
    assert found == {"valid_to": ["No such time."]}


def test_an_alias_needs_a_price_to_follow(world: World, visitors: Visitors) -> None:
    found = errors(visitors.admin.post(ALIAS, alias(target_model="nobody")))
    assert found == {"target_model": ["No price is known that rates could follow from."]}


def test_an_unpriced_model_leads_to_its_alias(world: World, visitors: Visitors) -> None:
    form = visitors.admin.get(f"{ALIAS}?model=mystery").context["form"]
    assert form.initial["model"] == "mystery"


def test_viewers_and_strangers_change_nothing(world: World, visitors: Visitors) -> None:
    visitors.admin.post(ALIAS, alias())
    rule = PriceRule.objects.get()
    end = f"/prices/rules/{rule.id}/end/"
    assert visitors.viewer.post(ALIAS, alias(model="other")).status_code == 403
    assert visitors.viewer.post(end).status_code == 403
    assert visitors.stranger.post(end).status_code == 404
    assert visitors.nobody.post(end).status_code == 302
    assert visitors.admin.get(end).status_code == 405
    assert "Yes, end" not in visitors.viewer.get("/prices/").content.decode()
    assert PriceRule.objects.get().valid_to is None


def test_what_was_charged_stays(world: World, visitors: Visitors) -> None:
    visitors.admin.post(ALIAS, alias())
    visitors.admin.post(f"/prices/rules/{PriceRule.objects.get().id}/end/")
    rate = PriceVersion.objects.get(own=True)
    assert rate.valid_to is not None
    assert rate.valid_to <= timezone.now() + timedelta(seconds=5)
