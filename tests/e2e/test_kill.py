"""A person stops an agent and reads the receipt."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from controlplane.identity.ids import new_id
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.models import Order, OrderAcknowledgement, Spool
from tests.e2e.conftest import NewContext, sign_in
from tests.e2e.sample import Sample

pytestmark = pytest.mark.browser


def book_that_speaks(sample: Sample, name: str = "gpu-1") -> Spool:
    now = datetime.now(tz=UTC)
    sidecar = enrol_sidecar(
        organization_id=sample.organization.id, name=name, actor=sample.actor, now=now
    ).sidecar
    return Spool.objects.create(
        id=new_id(),
        organization=sample.organization,
        sidecar=sidecar,
        book=f"{name}/0",
        boot="b",
        incarnation=uuid4(),
        policy_valid_until=now + timedelta(seconds=30),
        last_sync_at=now,
    )


def acknowledge(spool: Spool) -> None:
    order = Order.objects.get(organization=spool.organization)
    OrderAcknowledgement.objects.create(
        order=order,
        spool=spool,
        streams_cut=3,
        tokens_after=0,
        last_byte_ms=21,
        at=order.created_at + timedelta(milliseconds=64),
    )


def test_a_kill_is_confirmed_by_every_sidecar(
    signed_in: Page, sample: Sample, complaints: list[str]
) -> None:
    spool = book_that_speaks(sample)
    signed_in.goto(f"/agents/{sample.agents['runaway'].id}/")
    signed_in.get_by_role("link", name="Kill", exact=True).click()
    signed_in.get_by_label("Reason").fill("It loops.")
    signed_in.get_by_role("button", name="Kill agent").click()

    receipt = signed_in.locator("#receipt")
    expect(receipt).to_contain_text("It loops.")
    expect(receipt).to_contain_text("0 of 1")
    expect(signed_in.get_by_role("button", name="Live")).to_be_visible()
    acknowledge(spool)
    expect(receipt).to_contain_text("1 of 1", timeout=10_000)
    expect(receipt.get_by_role("row", name="gpu-1/0")).to_contain_text("64 ms")

    signed_in.get_by_role("link", name="Back to Invoice matcher").click()
    expect(signed_in.locator("#agent-state")).to_have_text("Killed")
    assert complaints == []


def test_a_kill_without_javascript_needs_a_reason(new_context: NewContext, sample: Sample) -> None:
    page = new_context(java_script_enabled=False).new_page()
    sign_in(page)
    page.goto(f"/agents/{sample.agents['runaway'].id}/kill/")
    page.get_by_label("Reason").evaluate("box => box.removeAttribute('required')")
    page.get_by_role("button", name="Kill agent").click()
    expect(page.get_by_text("This field is required.")).to_be_visible()
    page.get_by_label("Reason").fill("It loops.")
    page.get_by_role("button", name="Kill agent").click()
    expect(page.get_by_role("heading", name="Kill Invoice matcher")).to_be_visible()


def test_a_key_is_shown_once(signed_in: Page, sample: Sample) -> None:
    signed_in.goto(f"/agents/{sample.agents['web-crawler'].id}/")
    signed_in.get_by_label("Name of the new key").fill("laptop")
    signed_in.get_by_role("button", name="Issue key").click()
    expect(signed_in.locator("#new-key")).to_contain_text("cmp_")
    signed_in.reload()
    expect(signed_in.locator("#new-key")).to_have_count(0)
    expect(signed_in.get_by_role("row", name="laptop")).to_be_visible()
