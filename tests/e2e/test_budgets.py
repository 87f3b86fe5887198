"""A person creates a budget and watches it fall."""

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from budgets.domain.usage import book_usage
from controlplane.identity.ids import new_id
from enforcement.rules.wire import Outcome, UsageEvent
from tests.e2e.conftest import NewContext, sign_in
from tests.e2e.sample import Sample

pytestmark = pytest.mark.browser
CENT = 10_000_000


def spend(sample: Sample, slug: str, nanos: int) -> None:
    """A finished call, booked as a sidecar's report is."""
    now = datetime.now(tz=UTC)
    event = UsageEvent(
        id=str(new_id()),
        agent=str(sample.agents[slug].id),
        model="qwen3-8b",
        started_at_ms=int(now.timestamp() * 1000),
        outcome=Outcome.COMPLETED,
        input_tokens=900,
        output_tokens=100,
        charge_nanos=nanos,
    )
    book_usage(organization_id=sample.organization.id, sidecar_id=None, events=[event], now=now)


def create_budget(page: Page) -> None:
    page.goto("/budgets/new/")
    page.get_by_label("Name").fill("Crawler pocket money")
    page.get_by_label("Whose use").select_option(label="Research › Paper digest › Web crawler")
    page.get_by_label("Limit", exact=True).fill("1.50")
    page.get_by_label("Window").select_option(label="Lifetime: never starts again")
    page.get_by_role("button", name="Create budget").click()


def test_a_new_budget_falls_while_one_watches(
    signed_in: Page, sample: Sample, complaints: list[str]
) -> None:
    create_budget(signed_in)
    expect(signed_in.get_by_role("heading", name="Crawler pocket money")).to_be_visible()
    expect(signed_in.get_by_text("No balance in this window yet")).to_be_visible()
    expect(signed_in.get_by_role("button", name="Live")).to_be_visible()

    spend(sample, "web-crawler", 45 * CENT)
    expect(signed_in.locator("#exposure")).to_contain_text("$1.05", timeout=10_000)

    spend(sample, "web-crawler", 60 * CENT)
    expect(signed_in.locator("#exposure")).to_contain_text(re.compile(r"Free\s*\$0\.45"))
    assert complaints == []


def test_a_live_update_leaves_the_focus_where_it_is(signed_in: Page, sample: Sample) -> None:
    signed_in.goto("/budgets/")
    expect(signed_in.get_by_role("button", name="Live")).to_be_visible()
    link = signed_in.get_by_role("link", name="Crawler requests")
    link.focus()
    spend(sample, "web-crawler", CENT)
    expect(signed_in.locator("#budget-tree")).to_contain_text("1 request", timeout=10_000)
    expect(link).to_be_focused()


def test_a_live_update_leaves_open_what_is_open(signed_in: Page, sample: Sample) -> None:
    spend(sample, "web-crawler", CENT)
    signed_in.reload()
    expect(signed_in.get_by_role("button", name="Live")).to_be_visible()
    signed_in.get_by_text("Show as a table").click()
    spend(sample, "web-crawler", CENT)
    latest = signed_in.locator("#spend-table tbody tr").last
    expect(latest).to_contain_text("$0.02", timeout=10_000)
    expect(latest).to_be_visible()
    expect(signed_in.locator("#spend-plot canvas")).to_have_count(1)


def test_paused_updates_come_at_once_when_resumed(signed_in: Page, sample: Sample) -> None:
    figure = signed_in.locator(".figure").first
    signed_in.get_by_role("button", name="Live").click()
    expect(signed_in.get_by_role("button", name="Paused")).to_be_visible()
    spend(sample, "web-crawler", 7 * CENT)
    signed_in.wait_for_timeout(2_500)
    expect(figure).to_contain_text("$0.00")
    signed_in.get_by_role("button", name="Paused").click()
    expect(figure).to_contain_text("$0.07")


def test_a_limit_that_means_nothing_is_told_at_its_field(signed_in: Page) -> None:
    signed_in.goto("/budgets/new/")
    signed_in.get_by_label("Name").fill("Nonsense")
    signed_in.get_by_label("Limit", exact=True).fill("a lot")
    signed_in.get_by_role("button", name="Create budget").click()
    expect(signed_in.get_by_text("Write dollars, like 25 or 0.01.")).to_be_visible()
    expect(signed_in.get_by_role("alert")).to_contain_text("Nothing was saved.")
    expect(signed_in.get_by_label("Name")).to_have_value("Nonsense")


def test_fields_that_mean_nothing_are_hidden(signed_in: Page) -> None:
    signed_in.goto("/budgets/new/")
    expect(signed_in.get_by_label("Begins on day")).to_be_visible()
    signed_in.get_by_label("Window").select_option("lifetime")
    expect(signed_in.get_by_label("Begins on day")).to_be_hidden()
    expect(signed_in.get_by_text("How it holds")).to_be_visible()
    signed_in.get_by_label("Soft").check()
    expect(signed_in.get_by_text("How it holds")).to_be_hidden()


def test_everything_can_be_written_without_javascript(
    new_context: NewContext, sample: Sample
) -> None:
    page = new_context(java_script_enabled=False).new_page()
    sign_in(page)
    create_budget(page)
    expect(page.get_by_role("heading", name="Crawler pocket money")).to_be_visible()
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Limit", exact=True).fill("2")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="Archive").click()
    page.get_by_label("Reason").fill("It was only a try.")
    page.get_by_role("button", name="Archive budget").click()
    expect(page.get_by_text("Crawler pocket money is archived.")).to_be_visible()
