"""The whole path: a person at the dashboard, a real sidecar, an engine that counts for itself."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect

from budgets.domain.prices import set_own_price
from budgets.models import UsageEvent
from enforcement.rules.policy import Rates
from enforcement.rules.wire import Outcome
from tests.e2e.browser import VIEWPORT
from tests.e2e.conftest import connect_url, sign_in
from tests.e2e.sample import Sample
from tests.e2e.server import ROOT, free_port, wait_for, web

pytestmark = pytest.mark.browser
PATIENCE_MS = 15_000
DOLLARS_PER_MTOK = 1_000_000_000


@pytest.fixture
def page(browser: Browser, sample: Sample, database_url: str, tmp_path: Path) -> Iterator[Page]:
    """The owner's page on a web process that has seen this database only."""
    set_own_price(
        organization_id=sample.organization.id,
        model="toy",
        rates=Rates(input=100 * DOLLARS_PER_MTOK, output=1_000 * DOLLARS_PER_MTOK),
        actor=sample.actor,
        now=datetime.now(tz=UTC),
    )
    with web(connect_url(database_url), log=tmp_path / "web.log") as address:
        context = browser.new_context(viewport=VIEWPORT, base_url=address)
        opened = context.new_page()
        sign_in(opened)
        yield opened
        context.close()


@contextmanager
def process(name: str, *command: str, port: int, path: str, **environment: str) -> Iterator[str]:
    """A child of ours, ready when it answers at `path`."""
    child = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env={**os.environ, **environment}
    )
    try:
        wait_for(child, port, path, name=name)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(15)


@contextmanager
def engine() -> Iterator[str]:
    port = free_port()
    options = ("--port", str(port), "--model", "toy", "--rate", "30")
    with process("engine", "tests.fakes.engine", *options, port=port, path="/v1/models") as url:
        yield url


@contextmanager
def sidecar(control_url: str, token: str, upstream: str, spool: Path) -> Iterator[str]:
    port = free_port()
    command = ("controlplane.cli.main", "sidecar", "run", "--upstream", f"toy-node={upstream}")
    options = ("--listen", f"127.0.0.1:{port}", "--spool-dir", str(spool))
    environment = {"COMPTROLLER_CONTROL_URL": control_url, "COMPTROLLER_SIDECAR_TOKEN": token}
    with process("sidecar", *command, *options, port=port, path="/readyz", **environment) as url:
        yield url


def ask(url: str, key: str, **options: Any) -> Any:
    """A call by the official client, as an agent makes it."""
    client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    hello: Any = [{"role": "user", "content": "Hello"}]
    return client.chat.completions.create(model="toy", messages=hello, **options)


def enrol(page: Page) -> str:
    page.goto("/sidecars/new/")
    page.get_by_label("Name").fill("gpu-1")
    page.get_by_role("button", name="Enrol sidecar").click()
    command = page.locator("#sidecar-command").text_content() or ""
    found = re.search(r"COMPTROLLER_SIDECAR_TOKEN=(\S+)", command)
    assert found is not None
    return found[1]


def issue_key(page: Page, sample: Sample, slug: str) -> str:
    page.goto(f"/agents/{sample.agents[slug].id}/")
    page.get_by_label("Name of the new key").fill("browser test")
    page.get_by_role("button", name="Issue key").click()
    return (page.locator("#new-key").text_content() or "").strip()


def create_cap(page: Page) -> None:
    page.goto("/budgets/new/")
    page.get_by_label("Name").fill("Crawler cap")
    page.get_by_label("Whose use").select_option(label="Research › Paper digest › Web crawler")
    page.get_by_label("Limit", exact=True).fill("3")
    page.get_by_label("Window").select_option("lifetime")
    page.get_by_role("button", name="Create budget").click()


def listen_to(url: str, key: str, heard: list[Any]) -> threading.Thread:
    """A stream of at most a thousand tokens, half a minute long, in a thread of its own."""

    def read() -> None:
        heard.extend(ask(url, key, stream=True, max_tokens=1_000))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_a_budget_falls_by_a_real_call_and_a_kill_ends_a_real_stream(
    page: Page, sample: Sample, tmp_path: Path
) -> None:
    address = page.url.rstrip("/")
    token, key = enrol(page), issue_key(page, sample, "web-crawler")
    with engine() as upstream, sidecar(address, token, upstream, tmp_path / "spool") as url:
        create_cap(page)
        expect(page.get_by_role("button", name="Live")).to_be_visible()
        usage = ask(url, key, max_tokens=150).usage
        charged = usage.prompt_tokens * 100 + usage.completion_tokens * 1_000
        assert charged == 130_000  # millionths of a dollar
        expect(page.locator("#exposure")).to_contain_text("$0.13", timeout=PATIENCE_MS)

        heard: list[Any] = []
        stream = listen_to(url, key, heard)
        page.goto(f"/agents/{sample.agents['web-crawler'].id}/")
        expect(page.get_by_text("1 running now")).to_be_visible(timeout=PATIENCE_MS)
        page.get_by_role("link", name="Kill", exact=True).click()
        page.get_by_label("Reason").fill("The test is over.")
        page.get_by_role("button", name="Kill agent").click()
        expect(page.locator("#receipt")).to_contain_text("1 of 1", timeout=PATIENCE_MS)
        expect(page.get_by_role("row", name="gpu-1")).to_contain_text("Acknowledged")
        stream.join(10)
        assert not stream.is_alive()
        assert 0 < len(heard) < 1_000
        assert heard[-1].choices[0].finish_reason == "length"

        page.get_by_role("link", name="Back to Web crawler").click()
        expect(page.locator("#agent-state")).to_have_text("Killed")
        expect(page.get_by_role("row", name="Killed")).to_be_visible(timeout=PATIENCE_MS)
    outcomes = UsageEvent.objects.order_by("started_at").values_list("outcome", flat=True)
    assert list(outcomes) == [Outcome.COMPLETED, Outcome.KILLED]
