"""A person brings prices: a file with a slip in it, and one that is far too large."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from budgets.models import PriceVersion
from tests.e2e.conftest import NewContext, listen, sign_in
from tests.e2e.sample import Sample
from tests.e2e.test_every_page import found_by_axe

pytestmark = pytest.mark.browser
SHEET = b"model,input,output\nllama,0.10,0.40\nslip,25000,1\n"
TOO_LARGE_BYTES = 100_000_000


def choose(page: Page, content: bytes) -> None:
    page.goto("/prices/import/")
    file = {"name": "prices.csv", "mimeType": "text/csv", "buffer": content}
    page.get_by_label("Price file").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Show what changes").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_slip_is_confirmed_by_name(
    new_context: NewContext, sample: Sample, complaints: list[str], scheme: str
) -> None:
    page = new_context(color_scheme=scheme).new_page()
    listen(page, complaints)
    sign_in(page)
    before = PriceVersion.objects.count()
    choose(page, SHEET)
    expect(page.get_by_role("heading", name="2 new models")).to_be_visible()
    assert found_by_axe(page) == []
    page.get_by_role("button", name="Let these rates hold").click()
    expect(page.get_by_text("Nothing was changed: confirm each jump")).to_be_visible()
    page.get_by_label("slip: input is $25000.00").check()
    page.get_by_role("button", name="Let these rates hold").click()
    expect(page.get_by_text("2 models are new, 0 changed")).to_be_visible()
    assert PriceVersion.objects.count() == before + 2
    assert complaints == []


def test_a_file_that_is_far_too_large_is_refused_in_words(signed_in: Page, tmp_path: Path) -> None:
    huge = tmp_path / "prices.csv"
    with huge.open("wb") as file:
        file.truncate(TOO_LARGE_BYTES)
    signed_in.goto("/prices/import/")
    signed_in.get_by_label("Price file").set_input_files(huge)
    signed_in.get_by_role("button", name="Show what changes").click()
    expect(signed_in.get_by_text("The request has more than 64 MiB.")).to_be_visible()
