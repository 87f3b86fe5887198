"""Who may call what, where it is sent, and how engines are spoken to."""

import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.cardformat import Capabilities, ToolCapability
from enforcement.rules.policy import CardGrant, Unit
from enforcement.rules.skillcard import card_digest
from enforcement.sidecar.config import Config, ConfigError, parse_listen, parse_upstream, read_token
from enforcement.sidecar.engines import Engine
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.plane import Plane, key_policy
from tests.sidecar.stack import KEY, PRICE, agent, budget, chat, in_loop, make_config, stack
from tests.skills.fixtures.make_cards import KEYS, payload, signed

CARD = signed(
    payload(
        capabilities=Capabilities(tools=[ToolCapability(name="search")]),
        expires="2099-01-01T00:00:00Z",
    )
)
GRANT = CardGrant(card=card_digest(CARD))
POLICY: dict[str, Any] = {"cards": {GRANT.card: CARD}, "card_keys": KEYS}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def code_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


@in_loop
async def test_an_agent_that_needs_a_card_may_use_its_tools_only(tmp_path: Path) -> None:
    plane = Plane(agents=[agent(requires_card=True, grants=[GRANT])], **POLICY)
    async with stack(tmp_path, plane=plane) as world:
        plain, _, _ = await world.post(chat(max_tokens=1))
        granted, _, _ = await world.post(chat(max_tokens=1, tools=[tool("search")]))
        other, headers, body = await world.post(chat(max_tokens=1, tools=[tool("shell")]))
        calls = world.engine.calls
        plane.change_policy(revoked_cards=[GRANT.card])
        while world.service.desk.book.policy_revision < 2:
            await world.quiet()
            await world.post(chat(max_tokens=1))
        revoked, _, revoked_body = await world.post(chat(max_tokens=1))
    assert (plain, granted, other, calls) == (200, 200, 403, 2)
    assert (code_of(body), headers["x-should-retry"]) == ("skill_card_tool_not_granted", "false")
    assert (revoked, code_of(revoked_body)) == (403, "skill_card_revoked")


@in_loop
async def test_an_agent_without_its_card_is_refused(tmp_path: Path) -> None:
    plane = Plane(agents=[agent(requires_card=True)], **POLICY)
    async with stack(tmp_path, plane=plane) as world:
        status, _, body = await world.post(chat(max_tokens=1))
    assert (status, code_of(body)) == (403, "skill_card_missing")
    assert plane.refusals == {"skill_card_missing": 1}


@in_loop
async def test_an_expired_key_is_unknown(tmp_path: Path) -> None:
    old = agent()
    old.keys[0] = key_policy(KEY, expires_at_ms=1_000)
    async with stack(tmp_path, plane=Plane(agents=[old])) as world:
        status, _, body = await world.post(chat())
    assert (status, code_of(body)) == (401, "invalid_api_key")


@in_loop
async def test_an_unknown_model_is_404(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        status, _, body = await world.post(chat(model="other"))
    assert (status, code_of(body)) == (404, "model_not_found")


@in_loop
async def test_bodies_that_are_no_json_are_refused(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        form, _, form_body = await world.post(chat(), content_type="text/plain")
        double, _, double_body = await world.post(b'{"model":"toy","model":"toy","messages":[{}]}')
        field, _, field_body = await world.post(chat(n_predict=5))
        assert world.engine.calls == 0
    assert (form, code_of(form_body)) == (415, "not_json")
    assert (double, code_of(double_body)) == (400, "duplicate_key")
    assert (field, json.loads(field_body)["error"]["param"]) == (400, "n_predict")


@in_loop
async def test_completions_and_embeddings_are_held_and_charged(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
    async with stack(tmp_path, engine=FakeEngine(kind="llamacpp"), plane=plane) as world:
        text = {"model": "toy", "prompt": "a", "max_tokens": 4}
        first, _, _ = await world.post(text, path="/v1/completions")
        embed = {"model": "toy", "input": ["a", "b"]}
        second, _, _ = await world.post(embed, path="/v1/embeddings")
        await world.quiet()
    assert (first, second) == (200, 200)
    assert "max_tokens" not in world.engine.requests[1]
    events = sorted(plane.events.values(), key=lambda event: event.endpoint)
    assert [(e.endpoint, e.input_tokens, e.output_tokens) for e in events] == [
        ("completions", PROMPT_TOKENS, 4),
        ("embeddings", PROMPT_TOKENS, 0),
    ]
    assert plane.balance("budget-tokens").spent == 2 * PROMPT_TOKENS + 4


@pytest.mark.parametrize(
    ("kind", "engine", "window", "additions"),
    [
        ("plain", Engine.UNKNOWN, 500, {"stream_options": {"include_usage": True}}),
        (
            "llamacpp",
            Engine.LLAMA_CPP,
            1000,
            {"stream_options": {"include_usage": True}, "timings_per_token": True},
        ),
        (
            "vllm",
            Engine.VLLM,
            1000,
            {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
    ],
)
def test_engines_are_known_and_spoken_to_in_their_way(
    tmp_path: Path, kind: str, engine: Engine, window: int, additions: dict[str, Any]
) -> None:
    @in_loop
    async def test() -> None:
        async with stack(tmp_path, engine=FakeEngine(kind=kind), context_window=500) as world:
            await world.post(chat(stream=True))
            (node,) = world.service.desk.router.upstreams
            (hello, *_) = world.plane.hellos
        assert (node.engine, node.context_window) == (engine, window)
        assert hello.upstreams[0].engine == engine.value
        assert hello.upstreams[0].models == ["toy"]
        request = world.engine.requests[0]
        assert {name: request[name] for name in additions} == additions
        assert request["max_tokens"] == window

    test()


@in_loop
async def test_a_prompt_without_any_bound_is_refused_under_a_sized_budget(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)])
    async with stack(tmp_path, plane=plane, context_window=None) as world:
        status, _, body = await world.post(chat(max_tokens=1))
    assert (status, code_of(body)) == (403, "unbounded_request")


@in_loop
async def test_a_request_budget_needs_no_bound(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.REQUESTS)])
    async with stack(tmp_path, plane=plane, context_window=None) as world:
        first, _, _ = await world.post(chat(max_tokens=1))
        await world.quiet()
        second, _, body = await world.post(chat(max_tokens=1))
    assert (first, second) == (200, 402)
    assert json.loads(body)["error"]["unit"] == "requests"


def test_upstreams_are_named_and_carry_their_keys() -> None:
    environ = {"COMPTROLLER_UPSTREAM_KEY_PAID_API": "secret"}
    paid = parse_upstream("paid-api=https://api.example/v1/", index=0, environ=environ)
    assert (paid.name, paid.base_url, paid.port, paid.tls, paid.key) == (
        "paid-api",
        "https://api.example",
        443,
        True,
        "secret",
    )
    plain = parse_upstream("http://[::1]:8080/base", index=3, environ={})
    assert (plain.name, plain.host, plain.port, plain.path, plain.key) == (
        "node-3",
        "::1",
        8080,
        "/base",
        "",
    )


def test_listeners_and_tokens(tmp_path: Path) -> None:
    assert parse_listen("[::1]:80") == ("::1", 80)
    (tmp_path / "token").write_text("from-file\n")
    assert read_token("t", tmp_path / "token", {}) == "t"
    assert read_token(None, tmp_path / "token", {}) == "from-file"
    assert read_token(None, None, {"COMPTROLLER_SIDECAR_TOKEN_FILE": str(tmp_path / "token")}) == (
        "from-file"
    )
    assert read_token(None, None, {"COMPTROLLER_SIDECAR_TOKEN": "from-env"}) == "from-env"
    with pytest.raises(ConfigError, match="--token-file"):
        read_token(None, tmp_path / "missing", {})


def test_upstreams_must_differ_in_name(tmp_path: Path) -> None:
    engine, plane = FakeEngine(), Plane(agents=[])
    engine.url = plane.url = "http://127.0.0.1:1"
    config = make_config(tmp_path, engine=engine, plane=plane)
    with pytest.raises(ConfigError, match="names must differ"):
        Config(
            upstreams=config.upstreams * 2,
            control_url=plane.url,
            token="t",
            spool_dir=tmp_path,
        )
