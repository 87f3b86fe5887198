"""Routes that nobody understands: refused, or passed on as requests where the operator says so."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.policy import Unit
from enforcement.sidecar.config import ConfigError, parse_upstream, with_passed
from tests.sidecar.engine import Writer, send_json
from tests.sidecar.plane import Plane
from tests.sidecar.polyglot import Polyglot
from tests.sidecar.stack import PRICE, agent, budget, in_loop, stack

PATH = "/v1/rerank"
BODY = {"model": "toy", "query": "cats", "documents": ["a", "b"]}


class Reranker(Polyglot):
    routes = frozenset([PATH])

    async def speak(self, path: str, body: dict[str, Any], writer: Writer) -> None:
        send_json(writer, {"results": [{"index": 0}]})


def code_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


@in_loop
async def test_an_unknown_route_is_refused(tmp_path: Path) -> None:
    async with stack(tmp_path, engine=Reranker()) as world:
        status, _, body = await world.post(BODY, path=PATH)
        assert (status, code_of(body), world.engine.calls) == (404, "unknown_route", 0)


@in_loop
async def test_a_passed_route_is_metered_as_a_request(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(2, Unit.REQUESTS)])
    async with stack(tmp_path, engine=Reranker(), plane=plane, passed=[PATH]) as world:
        status, _, body = await world.post(BODY, path=PATH)
        await world.post({"query": "no model named"}, path=PATH)
        await world.quiet()
        spent, _, refusal = await world.post(BODY, path=PATH)
    assert (status, json.loads(body)) == (200, {"results": [{"index": 0}]})
    assert world.engine.requests == [BODY, {"query": "no model named"}]
    assert (spent, json.loads(refusal)["error"]["reason"]) == (402, "budget_exhausted")
    assert plane.balance("budget-requests").spent == 2
    assert [(e.endpoint, e.model, e.presumed) for e in plane.events.values()] == [
        ("passed", "toy", False)
    ] * 2


@pytest.mark.parametrize("unit", [Unit.USD, Unit.TOKENS, Unit.OUTPUT_TOKENS, Unit.TOOL_CALLS])
def test_what_nobody_can_count_is_refused_under_a_budget_of_it(tmp_path: Path, unit: Unit) -> None:
    @in_loop
    async def test() -> None:
        plane = Plane(agents=[agent()], budgets=[budget(10**9, unit)], prices=[PRICE])
        async with stack(tmp_path, engine=Reranker(), plane=plane, passed=[PATH]) as world:
            status, _, body = await world.post(BODY, path=PATH)
            assert (status, code_of(body), world.engine.calls) == (403, "unbounded_request", 0)

    test()


@in_loop
async def test_it_is_still_read_strictly_and_needs_a_key(tmp_path: Path) -> None:
    async with stack(tmp_path, engine=Reranker(), passed=[PATH]) as world:
        double, _, first = await world.post(b'{"model":"toy","model":"x"}', path=PATH)
        stream, _, second = await world.post(BODY | {"stream": True}, path=PATH)
        nobody, _, _ = await world.post(BODY, path=PATH, authorization="Bearer no")
        near, _, _ = await world.post(BODY, path=PATH + "/more")
        assert world.engine.calls == 0
    assert (double, code_of(first)) == (400, "duplicate_key")
    assert (stream, code_of(second), nobody, near) == (400, "not_metered", 401, 404)


@in_loop
async def test_an_agent_with_cards_needs_one_for_the_route(tmp_path: Path) -> None:
    plane = Plane(agents=[agent(requires_card=True)])
    async with stack(tmp_path, engine=Reranker(), plane=plane, passed=[PATH]) as world:
        status, _, body = await world.post(BODY, path=PATH)
    assert (status, code_of(body)) == (403, "skill_card_missing")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("other=/v1/rerank", "no --upstream is named 'other'"),
        ("node=rerank", "a path such as"),
        ("node=/v1/../x", "a path such as"),
        ("node=/v1/chat/completions", "is understood here"),
        ("node=/metrics", "is understood here"),
    ],
)
def test_what_cannot_be_passed(text: str, why: str) -> None:
    node = parse_upstream("node=http://127.0.0.1:9", index=0, environ={})
    with pytest.raises(ConfigError, match=why):
        with_passed([node], [text])
    passing = dataclasses.replace(node, passes=("/a", "/b"))
    assert with_passed([node], ["node=/a, /b"]) == (passing,)
