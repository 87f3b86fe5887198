"""What holds on every route that spends: keys, skill cards, states, words of refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.cardformat import Capabilities, ToolCapability
from enforcement.rules.dialects import BY_PATH, Family
from enforcement.rules.policy import AgentState, CardGrant, Unit
from enforcement.rules.skillcard import card_digest
from tests.rules.dialects.samples import BODIES
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import KEY, agent, budget, in_loop, split_answer, stack
from tests.skills.fixtures.make_cards import KEYS, payload, signed

CARD = signed(
    payload(
        capabilities=Capabilities(tools=[ToolCapability(name="search")]),
        expires="2099-01-01T00:00:00Z",
    )
)
GRANT = CardGrant(card=card_digest(CARD))
POLICY: dict[str, Any] = {"cards": {GRANT.card: CARD}, "card_keys": KEYS}
FUNCTION = {"type": "function", "function": {"name": "shell"}}
TOOLS = {
    "/v1/chat/completions": FUNCTION,
    "/v1/responses": {"type": "function", "name": "shell"},
    "/v1/messages": {"name": "shell", "input_schema": {}},
    "/api/chat": FUNCTION,
}
PATHS = {path.decode(): BODIES[dialect.endpoint] for path, dialect in BY_PATH.items()}


def text_of(body: bytes) -> str:
    """Code and message of a refusal, wherever the dialect has them."""
    said = json.loads(body)
    inner = said["error"] if isinstance(said["error"], dict) else said
    return f"{inner['code']} {inner.get('reason', '')} {inner.get('message', '')}"


def toy(path: str, **fields: Any) -> dict[str, Any]:
    return PATHS[path] | {"model": "toy"} | fields


def request(path: str, header: str) -> bytes:
    """A whole request with one header for the key."""
    body = json.dumps(toy(path)).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n"
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + fields).encode() + body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", ["authorization: Bearer ", "x-api-key: "])
def test_the_key_is_taken_as_clients_send_it(tmp_path: Path, path: str, header: str) -> None:
    @in_loop
    async def test() -> None:
        plane = Plane(agents=[agent(state=AgentState.PAUSED)])
        async with stack(tmp_path, plane=plane, dialects=list(Family)) as world:
            paused = split_answer(await world.raw(request(path, header + KEY)))
            unknown = split_answer(await world.raw(request(path, header + "no")))
        assert (paused[0], "agent_paused" in text_of(paused[2])) == (403, True)
        assert (unknown[0], "agent key" in text_of(unknown[2])) == (401, True)

    test()


@pytest.mark.parametrize("path", TOOLS)
def test_tools_that_no_card_grants_are_refused(tmp_path: Path, path: str) -> None:
    @in_loop
    async def test() -> None:
        plane = Plane(agents=[agent(requires_card=True, grants=[GRANT])], **POLICY)
        engine = FakeEngine(kind="llamacpp")
        async with stack(tmp_path, engine=engine, plane=plane, dialects=list(Family)) as world:
            status, headers, body = await world.post(toy(path, tools=[TOOLS[path]]), path=path)
        assert (status, headers["x-should-retry"], engine.calls) == (403, "false", 0)
        assert "skill_card_tool_not_granted" in text_of(body)

    test()


@pytest.mark.parametrize("path", PATHS)
def test_a_spent_budget_refuses_in_the_words_of_the_dialect(tmp_path: Path, path: str) -> None:
    @in_loop
    async def test() -> None:
        plane = Plane(agents=[agent()], budgets=[budget(0, Unit.REQUESTS)])
        engine = FakeEngine()
        async with stack(tmp_path, engine=engine, plane=plane, dialects=list(Family)) as world:
            status, headers, body = await world.post(toy(path), path=path)
        assert (status, headers["x-should-retry"], engine.calls) == (402, "false", 0)
        for fact in ('"budget":"cap in requests"', '"unit":"requests"', '"limit":0', '"spent":0'):
            assert fact in body.decode()

    test()


@pytest.mark.parametrize("path", PATHS)
def test_a_node_that_does_not_speak_the_dialect_is_not_asked(tmp_path: Path, path: str) -> None:
    @in_loop
    async def test() -> None:
        family = BY_PATH[path.encode()].family
        others = [other for other in Family if other not in (family, Family.OPENAI)]
        async with stack(tmp_path, engine=(engine := FakeEngine()), dialects=others) as world:
            status, _, body = await world.post(toy(path), path=path)
        assert (status, engine.calls) == (404, 0)
        assert "dialect_not_served" in text_of(body)

    test()
