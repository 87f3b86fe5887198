"""Every page: nothing in the console, nothing that axe finds, in light and in dark."""

from collections.abc import Mapping

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

from enforcement.models import ServingNode
from tests.e2e.conftest import NewContext, listen, sign_in
from tests.e2e.sample import Sample, keep_alive

pytestmark = pytest.mark.browser


def paths(sample: Sample) -> Mapping[str, str]:
    assert sample.order is not None
    node = ServingNode.objects.order_by("name")[0].pk
    agent, budget = sample.agents["code-reviewer"].id, sample.budgets["Reviewer session"].id
    return {
        "overview": "/",
        "budgets": "/budgets/",
        "archived budgets": "/budgets/?archived=1",
        "budget": f"/budgets/{budget}/",
        "new budget": "/budgets/new/",
        "edit budget": f"/budgets/{budget}/edit/",
        "explain": f"/budgets/explain/?agent={agent}&model=gpt-4o",
        "back-test": "/budgets/backtest/",
        "alerts": "/alerts/",
        "plan a change": f"/budgets/{budget}/changes/new/",
        "archive budget": f"/budgets/{budget}/archive/",
        "agents": "/agents/",
        "agent": f"/agents/{agent}/",
        "killed agent": f"/agents/{sample.agents['runaway'].id}/",
        "new agent": "/agents/new/",
        "kill": f"/agents/{agent}/kill/",
        "receipt": f"/orders/{sample.order.id}/",
        "nodes": "/nodes/",
        "node": f"/nodes/{node}/",
        "cost of a node": f"/nodes/{node}/costs/new/",
        "reconciliation": "/reconciliation/",
        "bill": "/reconciliation/bills/new/",
        "bill by hand": "/reconciliation/bills/enter/",
        "efficiency": "/efficiency/",
        "enrol": "/sidecars/new/",
        "prices": "/prices/",
        "usage": "/usage/?first=agent&second=tag:env",
        "new rate": "/prices/new/",
        "price file": "/prices/import/",
        "measured rates": "/prices/measure/",
        "new alias": "/prices/aliases/new/",
        "new discount": "/prices/discounts/new/",
        "skills": "/skills/",
        "audit": "/audit/",
        "background work": "/tasks/",
        "settings": "/settings/",
        "missing": "/no-such-page/",
    }


def found_by_axe(page: Page) -> list[str]:
    result = Axe().run(page)
    return [
        f"{violation['id']}: {node['html'][:160]}"
        for violation in result.response["violations"]
        for node in violation["nodes"]
    ]


def visit_all(page: Page, sample: Sample) -> dict[str, list[str]]:
    """What axe finds on each page, from the sign-in on."""
    page.goto("/sign-in/")
    found = {"sign-in": found_by_axe(page)}
    sign_in(page)
    for name, path in paths(sample).items():
        keep_alive(sample)
        page.goto(path)
        page.wait_for_load_state("load")
        page.wait_for_timeout(100)
        found[name] = found_by_axe(page)
    return {name: rows for name, rows in found.items() if rows}


def test_every_page_is_accessible_quiet_and_asks_only_this_server(
    new_context: NewContext, busy_sample: Sample, complaints: list[str]
) -> None:
    found: dict[str, dict[str, list[str]]] = {}
    asked: set[str] = set()
    for scheme in ("light", "dark"):
        page = new_context(color_scheme=scheme, reduced_motion="reduce").new_page()
        listen(page, complaints)
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        found[scheme] = visit_all(page, busy_sample)
    assert found == {"light": {}, "dark": {}}
    assert [text for text in complaints if "404" not in text] == []
    assert len(asked) == 1
