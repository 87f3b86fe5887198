import re

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from controlplane.identity.domain import make_sign_in_link
from tests.e2e.conftest import NewContext, sign_in
from tests.e2e.sample import EMAIL, Sample

pytestmark = pytest.mark.browser


def test_a_password_leads_to_the_page_that_was_asked_for(
    new_context: NewContext, sample: Sample
) -> None:
    page = new_context().new_page()
    page.goto("/budgets/")
    expect(page).to_have_url(re.compile(r"/sign-in/\?next=/budgets/$"))
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill("a-long-password-for-tests")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Budgets", exact=True)).to_be_visible()


def test_a_wrong_password_is_told_beside_the_form(new_context: NewContext, sample: Sample) -> None:
    page = new_context().new_page()
    page.goto("/sign-in/")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill("not-the-password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("The address or the password is wrong.")


def test_a_one_time_link_works_once(new_context: NewContext, sample: Sample) -> None:
    secret = make_sign_in_link(person_id=sample.owner.id, now=timezone.now())
    page = new_context().new_page()
    page.goto(f"/sign-in/{secret}/")
    expect(page.get_by_text("Dana Whitfield")).to_be_visible()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    other = new_context().new_page()
    other.goto(f"/sign-in/{secret}/")
    expect(other.get_by_text("This sign-in link was used before.")).to_be_visible()


def test_signing_out_ends_the_session(new_context: NewContext, sample: Sample) -> None:
    page = new_context().new_page()
    sign_in(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto("/")
    expect(page).to_have_url(re.compile(r"/sign-in/"))
