"""`./run screenshots`: pictures of the real dashboard with sample data, in docs/screenshots.

Starts a throw-away PostgreSQL and the web process, signs in, and takes each page in light and dark.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

    from tests.e2e.sample import Sample

TARGET = Path(__file__).parents[2] / "docs" / "screenshots"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main(names: list[str]) -> int:
    from tests.e2e.browser import chromium, launched
    from tests.e2e.server import new_database
    from tests.plugin import ENVIRONMENT, Server

    program = chromium()
    if program is None:
        sys.stderr.write("No Chromium found: install it, or name it in CHROMIUM.\n")
        return 6
    database = Server()
    database.start()
    try:
        url = new_database(database.cluster.url, "test_screenshots")
        os.environ |= {**ENVIRONMENT, "DATABASE_URL": url}
        sample = _prepare()
        from tests.e2e.server import web

        log = database.home / "web.log"
        with web(url, log=log) as address, launched(program) as browser:
            _take_all(browser, address, sample, names)
    finally:
        database.stop()
    return 0


def _prepare() -> "Sample":
    import django
    from django.core.management import call_command

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from tests.e2e.sample import make_sample

    return make_sample(now=datetime.now(tz=UTC))


def _pages(sample: "Sample") -> dict[str, str]:
    assert sample.order is not None
    agent, budget = sample.agents["code-reviewer"].id, sample.budgets["Platform day"].id
    return {
        "overview": "/",
        "budgets": "/budgets/",
        "budget": f"/budgets/{budget}/",
        "new-budget": "/budgets/new/",
        "agents": "/agents/",
        "agent": f"/agents/{agent}/",
        "kill": f"/agents/{agent}/kill/",
        "receipt": f"/orders/{sample.order.id}/",
        "nodes": "/nodes/",
        "prices": "/prices/",
        "skills": "/skills/",
        "audit": "/audit/",
        "settings": "/settings/",
    }


def _take_all(browser: "Browser", address: str, sample: "Sample", names: list[str]) -> None:
    from tests.e2e.browser import VIEWPORT
    from tests.e2e.sample import keep_alive

    TARGET.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        context = browser.new_context(
            viewport=VIEWPORT, color_scheme=scheme, reduced_motion="reduce", base_url=address
        )
        _sign_in(context, scheme, names)
        for name, path in _pages(sample).items():
            if not names or name in names:
                keep_alive(sample)
                _take(context, path, TARGET / f"{name}-{scheme}.png")
        context.close()


def _sign_in(context: "BrowserContext", scheme: str, names: list[str]) -> None:
    from tests.e2e.sample import EMAIL, PASSWORD

    page = context.new_page()
    page.goto("/sign-in/")
    if not names or "sign-in" in names:
        page.screenshot(path=TARGET / f"sign-in-{scheme}.png")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
    page.close()


def _take(context: "BrowserContext", path: str, target: Path) -> None:
    page = context.new_page()
    page.goto(path)
    page.wait_for_load_state("load")
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(250)  # the chart draws itself after the fonts
    page.screenshot(path=target)
    sys.stdout.write(f"{target}\n")
    page.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
