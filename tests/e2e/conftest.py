"""A browser, a running server on the test database, and the sample company in it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from playwright.sync_api import Browser, BrowserContext, Page

from tests.e2e.browser import VIEWPORT, chromium, launched
from tests.e2e.sample import EMAIL, PASSWORD, Sample, make_sample
from tests.e2e.server import web

NewContext = Callable[..., BrowserContext]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for these tests only: its event loop must not be there for others."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium found: install it, or name it in CHROMIUM")
    with launched(program) as started:
        yield started


def connect_url(server_url: str) -> str:
    """The address of the database that Django's test runner made on this server."""
    name = connection.settings_dict["NAME"]
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


@pytest.fixture(scope="package")
def address(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory, database_url: str
) -> Iterator[str]:
    """The web process on the database that Django's test runner made."""
    log = tmp_path_factory.mktemp("web") / "log"
    with web(connect_url(database_url), log=log) as url:
        yield url


@pytest.fixture
def sample(transactional_db: None) -> Sample:
    """The company without calls: each test makes those that it looks at."""
    return make_sample(now=datetime.now(tz=UTC), calls=False)


@pytest.fixture
def busy_sample(transactional_db: None) -> Sample:
    """The company with a day of calls behind it."""
    return make_sample(now=datetime.now(tz=UTC))


@pytest.fixture
def new_context(browser: Browser, address: str) -> Iterator[NewContext]:
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        defaults: dict[str, Any] = {"viewport": VIEWPORT, "base_url": address}
        made.append(browser.new_context(**defaults | options))
        return made[-1]

    yield make
    for context in made:
        context.close()


@pytest.fixture
def complaints() -> list[str]:
    """Errors and policy violations that the pages of `signed_in` wrote to their console."""
    return []


def sign_in(page: Page) -> None:
    page.goto("/sign-in/")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: not url.endswith("/sign-in/"))


def listen(page: Page, complaints: list[str]) -> None:
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))


@pytest.fixture
def signed_in(new_context: NewContext, sample: Sample, complaints: list[str]) -> Page:
    """A page of the company's owner, on the overview."""
    page = new_context().new_page()
    listen(page, complaints)
    sign_in(page)
    return page
