"""Calls through a model server that has the middleware in it."""

import asyncio
import json
from pathlib import Path

import pytest

from enforcement.rules.policy import BudgetPolicy, HoldMode, OrderKind, Unit
from enforcement.rules.wire import Outcome
from tests.inprocess.stack import inprocess
from tests.inprocess.toy import PROMPT_TOKENS, Toy
from tests.sidecar.plane import Plane, lease_states
from tests.sidecar.stack import (
    AGENT,
    PRICE,
    agent,
    budget,
    chat,
    events_of,
    in_loop,
    split_answer,
    stack,
)

GENEROUS = 10**9


def plane_with(*budgets: BudgetPolicy) -> Plane:
    return Plane(agents=[agent()], prices=[PRICE], budgets=list(budgets))


@in_loop
async def test_a_whole_answer_is_held_for_and_settled(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS))
    async with inprocess(tmp_path, plane=plane) as found:
        status, headers, body = await found.post(chat(max_tokens=5))
        await found.quiet()

    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] == 5
    (event,) = plane.events.values()
    assert headers["x-request-id"] == event.id
    assert (event.input_tokens, event.output_tokens) == (PROMPT_TOKENS, 5)
    assert event.charge_nanos == plane.balance("budget-usd").spent == PROMPT_TOKENS + 2 * 5
    assert not event.estimated


@in_loop
async def test_nothing_of_the_clients_head_reaches_the_engine(tmp_path: Path) -> None:
    async with inprocess(tmp_path) as found:
        await found.post(
            chat(max_tokens=5), x_secret="s", traceparent=f"00-{'1' * 32}-{'2' * 16}-01"
        )
        (head,) = found.toy.heads
        (body,) = found.toy.bodies

    names = {b"host", b"accept-encoding", b"content-type", b"content-length", b"x-request-id"}
    assert head.keys() == names | {b"traceparent"}
    assert body == chat(max_tokens=5)


@in_loop
async def test_a_stream_is_passed_on_and_settled(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS))
    async with inprocess(tmp_path, plane=plane) as found:
        status, headers, body = await found.post(chat(max_tokens=5, stream=True))
        await found.quiet()
        (sent,) = found.toy.bodies

    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = events_of(body)
    assert len(events) == 6
    assert not any("usage" in event for event in events)  # the client asked for none
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    (event,) = plane.events.values()
    assert (event.output_tokens, event.outcome, event.estimated) == (5, Outcome.COMPLETED, False)


@in_loop
async def test_its_refusals_are_the_sidecars(tmp_path: Path) -> None:
    bodies = []
    for place, world in ((tmp_path / "a", inprocess), (tmp_path / "b", stack)):
        async with world(place, plane=plane_with(budget(5))) as found:
            status, headers, body = await found.post(chat(max_tokens=50))
            assert (status, headers["x-should-retry"]) == (402, "false")
            bodies.append(json.loads(body))
    for body in bodies:
        del body["error"]["request_id"]

    assert bodies[0] == bodies[1]
    assert bodies[0]["error"]["code"] == "insufficient_quota"


@in_loop
async def test_a_kill_aborts_in_the_engine_and_counts_exactly(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS))
    toy = Toy(delay=0.002, aborts=True)
    async with inprocess(tmp_path, plane=plane, toy=toy) as found:
        call = asyncio.create_task(found.post(chat(max_tokens=900, stream=True)))
        while toy.output_tokens < 10:
            await asyncio.sleep(0.005)
        order = plane.order(OrderKind.KILL, AGENT)
        _, _, body = await call
        await found.quiet()
        while order.id not in plane.acknowledgements:
            await asyncio.sleep(0.005)
        acknowledged = plane.acknowledgements[order.id]

    last = events_of(body)[-1]
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["comptroller"]["reason"] == "agent_killed"
    (event,) = plane.events.values()
    assert toy.aborted == [f"chatcmpl-{event.id}"]
    assert toy.disconnects == 0
    assert event.output_tokens == toy.output_tokens < 900
    assert (event.outcome, event.estimated) == (Outcome.KILLED, False)
    assert acknowledged.streams_cut == 1
    assert acknowledged.tokens_after <= 1  # made while the abort was on its way, and counted above


@in_loop
async def test_a_kill_disconnects_where_there_is_no_abort(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS))
    toy = Toy(delay=0.002)
    async with inprocess(tmp_path, plane=plane, toy=toy) as found:
        call = asyncio.create_task(found.post(chat(max_tokens=900, stream=True)))
        while toy.output_tokens < 10:
            await asyncio.sleep(0.005)
        plane.order(OrderKind.KILL, AGENT)
        await call
        await found.quiet()

    (event,) = plane.events.values()
    assert toy.disconnects == 1
    assert toy.output_tokens <= event.output_tokens <= toy.output_tokens + 4  # what vLLM may add
    assert event.estimated


@in_loop
async def test_a_metered_stream_is_cut_within_its_budget(tmp_path: Path) -> None:
    cap = PROMPT_TOKENS + 300
    plane = plane_with(budget(cap, Unit.TOKENS, hold_mode=HoldMode.METERED))
    toy = Toy(delay=0.0005, aborts=True)
    async with inprocess(tmp_path, plane=plane, toy=toy) as found:
        _, _, body = await found.post(chat(max_tokens=900, stream=True))
        await found.quiet()

    assert events_of(body)[-1]["comptroller"]["reason"] == "budget_exhausted"
    balance = plane.balance("budget-tokens")
    assert balance.spent == PROMPT_TOKENS + toy.output_tokens <= cap
    assert (balance.held, balance.overrun) == (0, 0)


@in_loop
async def test_a_client_that_leaves_stops_the_engine(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS))
    toy = Toy(delay=0.002, aborts=True)
    async with inprocess(tmp_path, plane=plane, toy=toy) as found:
        stream = await found.openai().chat.completions.create(**chat(max_tokens=900), stream=True)
        async for _ in stream:
            if toy.output_tokens > 10:
                break
        await stream.close()
        await found.quiet()

    (event,) = plane.events.values()
    assert event.outcome is Outcome.CLIENT_GONE
    assert event.output_tokens == toy.output_tokens < 900


@in_loop
async def test_a_slow_client_holds_back_the_engine(tmp_path: Path) -> None:
    toy = Toy(size=100_000, context=10_000)
    async with inprocess(tmp_path, toy=toy, environ={"COMPTROLLER_GRANT_TIMEOUT": "1"}) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port, limit=1024)
        body = json.dumps(chat(max_tokens=5_000, stream=True)).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer cmp_live_agent1_secret\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        await asyncio.sleep(0.5)
        before = toy.output_tokens
        await asyncio.sleep(0.3)
        assert toy.output_tokens == before < 1_000
        writer.transport.abort()
        await found.quiet()
    assert reader is not None


@in_loop
async def test_many_calls_at_once_share_one_book(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS), budget(10_000, Unit.REQUESTS))
    async with inprocess(tmp_path, plane=plane) as found:
        wishes = [chat(max_tokens=3, stream=n % 2 == 0) for n in range(60)]
        answers = await asyncio.gather(*(found.post(wish) for wish in wishes))
        await found.quiet()

    assert [status for status, _, _ in answers] == [200] * 60
    assert plane.balance("budget-usd").spent == 60 * (PROMPT_TOKENS + 2 * 3)
    assert plane.balance("budget-requests").spent == 60


@in_loop
async def test_a_broken_engine_is_502_and_charged_its_hold(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS))
    toy = Toy()
    toy.failing = True
    async with inprocess(tmp_path, plane=plane, toy=toy) as found:
        status, _, body = await found.post(chat(max_tokens=5))
        await found.quiet()

    assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_failed")
    (event,) = plane.events.values()
    assert (event.presumed, event.charge_nanos) == (True, PROMPT_TOKENS + 2 * 5)


@in_loop
async def test_the_server_stops_and_everything_goes_home(tmp_path: Path) -> None:
    plane = plane_with(budget(GENEROUS))
    async with inprocess(tmp_path, plane=plane) as found:
        await found.post(chat(max_tokens=5))

    assert {state for state, _, _ in lease_states(plane)} == {"settled"}
    assert plane.balance("budget-usd").held == 0
    assert plane.balance("budget-usd").spent == PROMPT_TOKENS + 2 * 5


@in_loop
async def test_a_server_without_lifespan_begins_with_its_first_request(tmp_path: Path) -> None:
    async with inprocess(tmp_path, toy=Toy(lifespan=False)) as found:
        statuses = []
        async with asyncio.timeout(5):
            while 200 not in statuses:
                statuses.append((await found.post(chat(max_tokens=5)))[0])
                await asyncio.sleep(0.05)
        await found.host.end()

    assert set(statuses) <= {200, 503}


@in_loop
async def test_a_second_process_has_a_book_of_its_own(tmp_path: Path) -> None:
    async with inprocess(tmp_path) as first, inprocess(tmp_path) as second:
        spools = {first.desk.book.spool, second.desk.book.spool}
        names = [world.desk.book.name[-2:] for world in (first, second)]

    assert len(spools) == 2
    assert names == ["/0", "/1"]


@in_loop
async def test_a_mounted_server_knows_its_routes(tmp_path: Path) -> None:
    async with inprocess(tmp_path, root_path="/llm") as found:
        status, _, _ = await found.post(chat(max_tokens=5))
        page, _, _ = await get(found, "/metrics")

    assert (status, page) == (200, 200)


# ---------------------------------------------------------------------------- routes


async def get(found, path: str) -> tuple[int, dict[str, str], bytes]:
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    return split_answer(await found.raw(request.encode()))


@in_loop
async def test_pages_that_cost_nothing_are_passed_on(tmp_path: Path) -> None:
    async with inprocess(tmp_path, environ={"COMPTROLLER_PAGES": "/stats"}) as found:
        assert (await get(found, "/metrics"))[2] == b'{"output_tokens": 0}'
        assert (await get(found, "/stats"))[2] == b'{"secret": "/stats"}'
        assert json.loads((await get(found, "/comptroller/readyz"))[2])["ready"] is True
        assert b"comptroller_sidecar_ready 1.0" in (await get(found, "/comptroller/metrics"))[2]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/audio/speech", 404),
        ("/tokenize", 404),
        ("/comptroller/nothing", 404),
        ("/healthz", 404),
        ("/metrics", 404),
        ("/v1/models", 405),
        ("/v1/chat/completions?x=1", 400),
        ("/v1/chat/../metrics", 400),
        ("/v1//chat/completions", 400),
        ("/v1/chat%2fcompletions", 400),
    ],
)
@in_loop
async def test_nothing_else_reaches_the_engine(tmp_path: Path, path: str, status: int) -> None:
    async with inprocess(tmp_path) as found:
        answered, _, body = await found.post(chat(max_tokens=5), path=path)

    assert answered == status
    assert "error" in json.loads(body)
    assert found.toy.calls == 0


@in_loop
async def test_websockets_are_refused(tmp_path: Path) -> None:
    said = []

    async def send(message) -> None:
        said.append(message)

    async with inprocess(tmp_path) as found:
        await found.middleware({"type": "websocket", "path": "/v1/realtime"}, None, send)

    assert said == [{"type": "websocket.close", "code": 1008}]
    assert found.toy.calls == 0


@in_loop
async def test_a_body_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    async with inprocess(tmp_path, environ={"COMPTROLLER_MAX_BODY_BYTES": "1000"}) as found:
        status, _, _ = await found.post(b"[" + b" " * 2000 + b"]")

    assert status == 413


@in_loop
async def test_a_key_that_nobody_has_is_401(tmp_path: Path) -> None:
    async with inprocess(tmp_path) as found:
        status, _, _ = await found.post(chat(max_tokens=5), authorization="Bearer nobody")

    assert status == 401
