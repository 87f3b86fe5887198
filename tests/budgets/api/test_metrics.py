"""An organization's budgets as Prometheus reads them."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from budgets.queries.gauges import budget_gauges
from enforcement.rules.policy import Mode, Unit
from tests.budgets.world import World, make_balance, make_budget

URL = "/api/v1/budgets/metrics"


def scrape(client: APIClient) -> dict[tuple[str, str, str], float]:
    """(name, budget, split value) → value, as Prometheus' own parser reads it."""
    answer = client.get(URL, HTTP_ACCEPT="application/openmetrics-text;q=0.5,*/*;q=0.1")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")
    return {
        (
            sample.name.removeprefix("comptroller_budget_"),
            sample.labels.get("budget", ""),
            sample.labels.get("value", ""),
        ): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def test_a_balance_is_told_in_dollars_with_all_its_counters(owner: APIClient, world: World) -> None:
    ends = timezone.now() + timedelta(hours=5)
    make_balance(
        make_budget(world, limit_amount=2_000_000_000),
        spent_amount=500_000_000,
        held_amount=250_000_000,
        suspense_amount=125_000_000,
        overrun_amount=1,
        window_start=ends - timedelta(days=1),
        window_end=ends,
    )
    found = scrape(owner)

    assert found["limit", "Reader", ""] == 2.0
    assert found["spent", "Reader", ""] == 0.5
    assert found["held", "Reader", ""] == 0.25
    assert found["suspense", "Reader", ""] == 0.125
    assert found["overrun", "Reader", ""] == 1e-9
    assert found["remaining", "Reader", ""] == pytest.approx(1.125)
    assert found["hours_to_reset", "Reader", ""] == pytest.approx(5, abs=0.01)
    assert found["balances_left_out", "", ""] == 0


def test_other_units_are_whole_numbers_and_unused_budgets_stand_there_too(
    owner: APIClient, world: World
) -> None:
    make_budget(world, name="calls", unit=Unit.REQUESTS, mode=Mode.SOFT, limit_amount=70)
    found = scrape(owner)

    assert found["limit", "calls", ""] == found["remaining", "calls", ""] == 70
    assert ("hours_to_reset", "calls", "") not in found  # a lifetime never resets


def test_viewers_read_it_and_strangers_see_nothing_of_it(
    viewer: APIClient, stranger: APIClient, world: World
) -> None:
    make_balance(make_budget(world))

    assert ("limit", "Reader", "") in scrape(viewer)
    assert scrape(stranger) == {("balances_left_out", "", ""): 0}
    assert APIClient().get(URL).status_code == 401


def test_the_number_of_series_is_bounded_and_what_is_left_out_is_counted(world: World) -> None:
    budget = make_budget(world, per="user", mode=Mode.SOFT)
    for number in range(12):
        make_balance(budget, value=f"user-{number}", spent_amount=number)
    make_budget(world, name="unused")
    gauges = budget_gauges(world.organization, now=timezone.now(), most=5)

    assert [gauge.labels["value"] for gauge in gauges.rows] == [
        f"user-{n}" for n in (11, 10, 9, 8, 7)
    ]
    assert gauges.left_out == 12 - 5 + 1


def test_a_name_cannot_break_out_of_its_label(owner: APIClient, world: World) -> None:
    make_budget(world, name='a"} 1\nevil{x="')
    found = scrape(owner)

    assert {budget for name, budget, _ in found if name == "limit"} == {'a"} 1\nevil{x="'}
    assert not any(re.fullmatch("evil.*", name) for name, _, _ in found)
