"""Anthropic's own client through the sidecar: answers, streams, tools, refusals, cuts, kills."""

import asyncio
from pathlib import Path
from typing import Any

import anthropic
import pytest

from enforcement.rules.dialects import Engine
from enforcement.rules.policy import HoldMode, OrderKind, PricePolicy, Rates, Unit
from enforcement.rules.wire import Outcome
from enforcement.sidecar.config import parse_upstream
from enforcement.sidecar.engines import Upstream
from tests.sidecar.engine import PROMPT_TOKENS
from tests.sidecar.plane import Plane
from tests.sidecar.polyglot import CACHED, CALL, Anthropic
from tests.sidecar.stack import AGENT, KEY, Stack, agent, budget, in_loop, make_config, stack

DIALECTS = frozenset(["anthropic"])
RATES = Rates(input=10_000_000, cached_input=1_000_000, cache_write=12_500_000, output=20_000_000)
PRICE = PricePolicy(id="price-1", model="toy", rates=RATES)
HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {"name": "search", "input_schema": {"type": "object"}}


def client(world: Stack, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=world.url, api_key=KEY, **({"max_retries": 0} | options)
    )


def plane(*budgets: Any, **fields: Any) -> Plane:
    return Plane(agents=[agent(**fields)], budgets=list(budgets), prices=[PRICE])


def world_of(tmp_path: Path, engine: Anthropic, plane: Plane, **settings: Any) -> Any:
    return stack(tmp_path, engine=engine, plane=plane, dialects=DIALECTS, **settings)


@in_loop
async def test_a_whole_answer(tmp_path: Path) -> None:
    told = plane(budget(10**6))
    async with world_of(tmp_path, Anthropic(), told) as world, client(world) as asker:
        answer = await asker.messages.create(model="toy", max_tokens=20, messages=HELLO)
        await world.quiet()
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 20)
    (event,) = told.events.values()
    assert (event.endpoint, event.input_tokens, event.cached_input_tokens) == (
        "messages",
        7,
        CACHED,
    )
    assert event.charge_nanos == (PROMPT_TOKENS - CACHED) * 10 + CACHED + 20 * 20
    assert told.balance("budget-usd").spent == event.charge_nanos
    head = world.engine.heads[0]
    assert "\r\nanthropic-version: 20" in head
    assert KEY not in head


@in_loop
async def test_a_stream_and_a_count(tmp_path: Path) -> None:
    told = plane(budget(100_000, Unit.TOKENS))
    async with world_of(tmp_path, Anthropic(), told) as world, client(world) as asker:
        async with asker.messages.stream(model="toy", max_tokens=9, messages=HELLO) as stream:
            text = "".join([part async for part in stream.text_stream])
            final = await stream.get_final_message()
        counted = await asker.messages.count_tokens(model="toy", messages=HELLO)
        models = [model.id async for model in asker.models.list()]
        await world.quiet()
    assert (text, final.usage.output_tokens) == ("word " * 9, 9)
    assert final.usage.cache_read_input_tokens == CACHED
    assert (counted.input_tokens, models) == (PROMPT_TOKENS, ["toy"])
    assert told.tokens == (PROMPT_TOKENS, 9)
    assert not any(event.presumed for event in told.events.values())
    assert sorted(e.endpoint for e in told.events.values()) == ["messages", "messages/count_tokens"]


@in_loop
async def test_tools_are_called_and_counted(tmp_path: Path) -> None:
    told = plane(budget(5, Unit.TOOL_CALLS))
    async with world_of(tmp_path, Anthropic(), told, max_tool_calls=2) as world:
        async with client(world) as asker:
            whole = await asker.messages.create(
                model="toy", max_tokens=4, messages=HELLO, tools=[TOOL]
            )
            async with asker.messages.stream(
                model="toy", max_tokens=4, messages=HELLO, tools=[TOOL]
            ) as stream:
                final = await stream.get_final_message()
        await world.quiet()
    for answer in (whole, final):
        assert answer.stop_reason == "tool_use"
        assert answer.content[1].name == CALL["name"]  # type: ignore[union-attr]
        assert answer.content[1].input == CALL["arguments"]  # type: ignore[union-attr]
    assert told.balance("budget-tool_calls").spent == 2


@in_loop
async def test_refusals_have_the_classes_of_the_client(tmp_path: Path) -> None:
    told = plane(budget(10))
    async with (
        world_of(tmp_path, Anthropic(), told) as world,
        client(world, max_retries=2) as asker,
    ):
        with pytest.raises(anthropic.APIStatusError) as spent:
            await asker.messages.create(model="toy", max_tokens=20, messages=HELLO)
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            await asker.with_options(api_key="cmp_live_no").messages.create(
                model="toy", max_tokens=20, messages=HELLO
            )
        with pytest.raises(anthropic.PermissionDeniedError) as unpriced:
            await asker.messages.create(model="other", max_tokens=20, messages=HELLO)
        with pytest.raises(anthropic.BadRequestError) as hidden:
            await asker.messages.create(
                model="toy", max_tokens=20, messages=HELLO, extra_body={"speed": "fast"}
            )
        calls = world.engine.calls
    body: Any = spent.value.body
    assert (spent.value.status_code, body["error"]["type"], calls) == (402, "billing_error", 0)
    facts = body["error"]
    assert (facts["budget"], facts["unit"], facts["limit"]) == ("cap in usd", "usd", "0.00000001")
    assert {"scope", "spent", "held", "window_ends_at", "request_increase_url"} <= facts.keys()
    assert told.refusals["budget_exhausted"] == 1  # never retried
    assert unknown.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    assert unpriced.value.body["error"]["code"] == "unpriced_model"  # type: ignore[index]
    assert hidden.value.body["error"]["param"] == "speed"  # type: ignore[index]


@in_loop
async def test_a_throttle_is_waited_for(tmp_path: Path) -> None:
    told = plane(requests_per_minute=60)
    async with world_of(tmp_path, Anthropic(), told, grant_timeout=0.1) as world:
        async with client(world, max_retries=4) as asker:
            first = [
                asker.messages.create(model="toy", max_tokens=1, messages=HELLO) for _ in range(62)
            ]
            answers = await asyncio.gather(*first)
        await world.quiet()
    assert len(answers) == 62
    assert told.refusals["requests_per_minute"] >= 1


@in_loop
async def test_a_cut_ends_the_message_and_says_why(tmp_path: Path) -> None:
    told = plane(budget(60, Unit.OUTPUT_TOKENS, hold_mode=HoldMode.METERED))
    engine = Anthropic(delay=0.001)
    slices = {"metered_slice_tokens": 16, "metered_margin_tokens": 8}
    async with world_of(tmp_path, engine, told, **slices) as world, client(world) as asker:
        async with asker.messages.stream(model="toy", max_tokens=400, messages=HELLO) as stream:
            notes = [e.model_extra async for e in stream if e.type == "message_delta"]
            final = await stream.get_final_message()
        await world.quiet()
    assert final.stop_reason == "max_tokens"
    assert [note["comptroller"]["budget"] for note in notes if note] == ["cap in output_tokens"]
    (booked,) = told.events.values()
    assert booked.outcome is Outcome.CUT
    assert engine.output_tokens <= told.balance("budget-output_tokens").spent <= 60


@in_loop
async def test_a_kill_ends_the_message(tmp_path: Path) -> None:
    told, engine = plane(budget(10**9)), Anthropic(delay=0.005)
    async with world_of(tmp_path, engine, told) as world, client(world) as asker:
        async with asker.messages.stream(model="toy", max_tokens=900, messages=HELLO) as stream:
            async for event in stream:
                if event.type == "text" and engine.output_tokens == 20:
                    told.order(OrderKind.KILL, AGENT)
            final = await stream.get_final_message()
        with pytest.raises(anthropic.PermissionDeniedError) as killed:
            await asker.messages.create(model="toy", max_tokens=1, messages=HELLO)
        await world.quiet()
    assert (final.stop_reason, killed.value.body["error"]["code"]) == ("max_tokens", "agent_killed")  # type: ignore[index]
    assert next(iter(told.events.values())).outcome is Outcome.KILLED
    assert engine.output_tokens < 900


@in_loop
async def test_a_node_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    class Broken(Anthropic):
        async def speak(self, path: str, body: dict[str, Any], writer: Any) -> None:
            self.natural_length = 5
            await super()._stream(body | {"max_tokens": 50}, _Dropping(writer))

    async with world_of(tmp_path, Broken(), plane()) as world, client(world) as asker:
        with pytest.raises(anthropic.APIStatusError) as error:
            async with asker.messages.stream(model="toy", max_tokens=50, messages=HELLO) as stream:
                await stream.get_final_message()
        await world.quiet()
    assert "ended its answer early" in str(error.value)


class _Dropping:
    """A writer that loses the last event."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        if b"message_stop" not in data:
            self._writer.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def test_the_nodes_key_is_sent_as_anthropic_wants_it(tmp_path: Path) -> None:
    environ = {"COMPTROLLER_UPSTREAM_KEY_PAID": "sk-node"}
    target = parse_upstream("paid=https://api.anthropic.com", index=0, environ=environ)
    told, engine = plane(), Anthropic()
    told.url = engine.url = "http://127.0.0.1:9"
    node = Upstream(target, make_config(tmp_path, engine=engine, plane=told))
    head = node.request_head(b"/v1/messages", length=1)
    assert b"\r\nx-api-key: sk-node\r\n" in head
    assert b"authorization" not in head


@pytest.mark.parametrize(("thinks", "charged"), [(False, 5 * len("word ") + 16), (True, 400)])
def test_a_provider_is_paid_what_it_may_have_made(
    tmp_path: Path, thinks: bool, charged: int
) -> None:
    @in_loop
    async def test() -> None:
        told, engine = plane(), Anthropic(delay=0.05)
        engine.thinks = thinks
        async with world_of(tmp_path, engine, told) as world, client(world) as asker:
            world.service.desk.router.upstreams[0].engine = Engine.ANTHROPIC
            async with asker.messages.stream(model="toy", max_tokens=400, messages=HELLO) as stream:
                async for event in stream:
                    if event.type == "content_block_delta" and engine.output_tokens == 5:
                        break
            await world.quiet()
        (event,) = told.events.values()
        assert (event.outcome, event.estimated) == (Outcome.CLIENT_GONE, True)
        assert charged <= event.output_tokens <= charged + 2 * len("word ")

    test()


@in_loop
async def test_cache_writes_and_tiers_are_priced_by_their_own_rates(tmp_path: Path) -> None:
    rates = Rates(input=1, cached_input=1, cache_write=2, output=1, cache_write_long=3)
    dear = Rates(input=10, cached_input=10, cache_write=20, output=10, cache_write_long=30)
    price = PricePolicy(id="p", model="toy", rates=rates, variants={"priority": dear})
    told = Plane(agents=[agent()], budgets=[budget(10**6)], prices=[price])
    engine = Anthropic()
    written = {"ephemeral_5m_input_tokens": 400_000, "ephemeral_1h_input_tokens": 600_000}
    engine.more_usage = {"cache_creation_input_tokens": 1_000_000, "cache_creation": written}
    window = {"context_window": 1_200_000}
    async with world_of(tmp_path, engine, told, **window) as world, client(world) as asker:
        await asker.messages.create(model="toy", max_tokens=1, messages=HELLO)
        engine.more_usage |= {"service_tier": "priority"}
        async with asker.messages.stream(model="toy", max_tokens=1, messages=HELLO) as stream:
            await stream.get_final_message()
        await world.quiet()
    standard, priority = sorted(told.events.values(), key=lambda event: event.charge_nanos)
    for event in (standard, priority):
        assert event.input_tokens == PROMPT_TOKENS + 1_000_000
        assert (event.cache_write_tokens, event.cache_write_long_tokens) == (1_000_000, 600_000)
    # 4 new, 3 read, 400,000 and 600,000 written, 1 made; rounded up once
    assert (standard.charge_nanos, standard.service_tier) == (3, "")
    assert (priority.charge_nanos, priority.service_tier) == (27, "priority")
    assert told.balance("budget-usd").spent == 30
