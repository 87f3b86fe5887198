"""Spans and metrics of calls, decoded by a receiver that they really reached."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enforcement.otel import names
from enforcement.otel.exporter import MAX_QUEUED, Exporter
from enforcement.rules.policy import HoldMode, OrderKind, Unit
from enforcement.rules.tracecontext import NO_TRACE, trace_of
from enforcement.rules.verdicts import Refuse
from enforcement.sidecar.telemetry import RefusedCall
from tests.otel.receiver import Receiver, attributes_of, receiver
from tests.sidecar.engine import PROMPT_TOKENS, FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import AGENT, KEY, PRICE, agent, budget, chat, in_loop, stack

TRACE_ID, SPAN_ID = "a1" * 16, "b2" * 8
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
SECRET = "the words of the prompt"


async def spans_of(found: Receiver, count: int) -> list[tuple[Span, dict[str, Any]]]:
    spans = await asyncio.to_thread(found.wait_for_spans, count)
    return [(span, attributes_of(span.attributes)) for span in spans]


def told(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": SECRET}]) | body | more


@in_loop
async def test_a_call_is_one_span_below_its_callers(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(10_000)], prices=[PRICE])
    engine = FakeEngine(kind="llamacpp")
    before_ns = time.time_ns() - 1_000_000
    with receiver() as found:
        async with stack(tmp_path, engine=engine, plane=plane, otlp_endpoint=found.url) as world:
            status, headers, _ = await world.post(
                told({"max_tokens": 20, "user": "ann"}),
                traceparent=PARENT,
                tracestate="a=1",
                x_comptroller_session="s-1",
                x_comptroller_tags="task=t-1",
            )
            ((span, said),) = await spans_of(found, 1)
    assert status == 200
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert (span.name, span.kind) == ("chat toy", Span.SPAN_KIND_CLIENT)
    assert (span.status.code, span.trace_state) == (0, "a=1")
    assert before_ns < span.start_time_unix_nano < span.end_time_unix_nano < time.time_ns()
    assert f"traceparent: 00-{TRACE_ID}-{span.span_id.hex()}-01\r\n" in engine.heads[0]
    assert said.pop("comptroller.gpu_ms") >= 1
    assert said.pop("server.port") == int(engine.url.rpartition(":")[2])
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.agent.id": AGENT,
        "gen_ai.conversation.id": "s-1",
        "gen_ai.request.model": "toy",
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.stream": False,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": PROMPT_TOKENS,
        "gen_ai.usage.output_tokens": 20,
        "server.address": "127.0.0.1",
        "user.id": "ann",
        "comptroller.verdict": "allow",
        "comptroller.outcome": "completed",
        "comptroller.charge_nanos": PROMPT_TOKENS + 2 * 20,
        "comptroller.price_version": "price-1",
        "comptroller.request_id": headers["x-request-id"],
        "comptroller.node": "node",
        "comptroller.attempt": 1,
        "comptroller.tag.task": "t-1",
        "comptroller.estimated": False,
        "comptroller.presumed": False,
    }
    assert found.resource["service.name"] == "comptroller-sidecar"
    assert not any(SECRET.encode() in body or KEY.encode() in body for body in found.bodies)


@in_loop
async def test_a_stream_tells_when_its_first_chunk_came(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm", delay=0.002)
    with receiver() as found:
        async with stack(tmp_path, engine=engine, otlp_endpoint=found.url) as world:
            await world.post(told({"max_tokens": 5, "stream": True}))
            ((span, said),) = await spans_of(found, 1)
    assert (said["gen_ai.request.stream"], said["gen_ai.usage.output_tokens"]) == (True, 5)
    whole_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert 0 <= said["gen_ai.response.time_to_first_chunk"] <= whole_s
    assert span.parent_span_id == b""
    assert f"traceparent: 00-{span.trace_id.hex()}-{span.span_id.hex()}-01\r\n" in engine.heads[0]


@in_loop
async def test_clamped_and_cut_calls_name_their_budget(tmp_path: Path) -> None:
    strict = budget(PROMPT_TOKENS + 30, Unit.TOKENS, id="strict", filters={"tag:way": ["strict"]})
    metered = budget(
        170, Unit.TOKENS, id="metered", filters={"tag:way": ["metered"]}, hold_mode=HoldMode.METERED
    )
    plane = Plane(agents=[agent()], budgets=[strict, metered])
    with receiver() as found:
        async with stack(
            tmp_path, engine=FakeEngine(kind="vllm"), plane=plane, otlp_endpoint=found.url
        ) as world:
            for way in ("strict", "metered"):
                body = told({"max_tokens": 900, "stream": True})
                await world.post(body, x_comptroller_tags=f"way={way}")
            spans = await spans_of(found, 2)
    assert [
        (said["comptroller.verdict"], said["comptroller.outcome"], said["comptroller.stopped_by"])
        for _, said in spans
    ] == [("clamp", "clamped", "strict"), ("cut", "cut", "metered")]
    assert [span.status.code for span, _ in spans] == [0, 0]


@in_loop
async def test_a_killed_call_is_an_error(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    engine = FakeEngine(kind="vllm", delay=0.02)
    with receiver() as found:
        async with stack(tmp_path, engine=engine, plane=plane, otlp_endpoint=found.url) as world:
            running = asyncio.create_task(world.post(told({"max_tokens": 900, "stream": True})))
            await asyncio.sleep(0.3)
            order = plane.order(OrderKind.KILL, AGENT)
            await running
            ((span, killed),) = await spans_of(found, 1)
    assert (killed["comptroller.verdict"], killed["error.type"]) == ("kill", "killed")
    assert (killed["comptroller.stopped_by"], span.status.code) == (order.id, 2)


@in_loop
async def test_refusals_are_errors(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.REQUESTS)])
    with receiver() as found:
        async with stack(tmp_path, plane=plane, otlp_endpoint=found.url) as world:
            await world.post(told({"max_tokens": 1}))
            await world.post(told({"max_tokens": 1}), traceparent=PARENT)
            await world.post(told({"model": "made-up-by-the-caller"}))
            spans = await spans_of(found, 3)
    _, (refused_span, refused), (_, unknown) = spans
    assert (refused_span.trace_id.hex(), refused_span.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert refused_span.status.code == 2
    assert refused["comptroller.verdict"] == "refuse"
    assert refused["comptroller.reason"] == refused["error.type"] == "budget_exhausted"
    assert (refused["comptroller.budget.id"], refused["http.response.status_code"]) == (
        "budget-requests",
        402,
    )
    assert "gen_ai.request.model" not in unknown


@in_loop
async def test_an_unrecorded_trace_gets_no_span_but_is_counted(tmp_path: Path) -> None:
    parent = f"00-{TRACE_ID}-{SPAN_ID}-00"
    engine = FakeEngine(kind="vllm")
    with receiver() as found:
        async with stack(tmp_path, engine=engine, otlp_endpoint=found.url) as world:
            await world.post(told({"max_tokens": 5}), traceparent=parent)
            await world.post(told({"max_tokens": 7}))
            await world.quiet()
            spans = await spans_of(found, 1)
    assert [said["gen_ai.usage.output_tokens"] for _, said in spans] == [7]
    assert f"traceparent: {parent}\r\n" in engine.heads[0]
    points = points_of(found, names.TOKEN_USAGE)
    assert points["output"].count == 2
    assert points["output"].sum == 12


def points_of(found: Receiver, name: str) -> dict[str, HistogramDataPoint]:
    """The points of a histogram, by the type of token."""
    return {
        attributes_of(point.attributes).get("gen_ai.token.type", ""): point
        for point in found.metrics[name].histogram.data_points
    }


@in_loop
async def test_metrics_add_up(tmp_path: Path) -> None:
    engine = FakeEngine(kind="vllm")
    with receiver() as found:
        async with stack(tmp_path, engine=engine, otlp_endpoint=found.url) as world:
            for tokens in (3, 4, 5):
                await world.post(told({"max_tokens": tokens}))
            await world.quiet()
    tokens = points_of(found, names.TOKEN_USAGE)
    (duration,) = points_of(found, names.OPERATION_DURATION).values()
    assert {kind: (point.count, point.sum) for kind, point in tokens.items()} == {
        "input": (3, 3 * PROMPT_TOKENS),
        "output": (3, 12),
    }
    assert list(tokens["output"].explicit_bounds) == names.TOKEN_BUCKETS
    assert (duration.count, found.metrics[names.OPERATION_DURATION].unit) == (3, "s")
    assert attributes_of(duration.attributes).keys() == {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "server.address",
        "server.port",
    }


@in_loop
async def test_a_collector_that_hangs_costs_no_call_anything(tmp_path: Path) -> None:
    with receiver() as found:
        found.hang = threading.Event()
        async with stack(tmp_path, otlp_endpoint=found.url) as world:
            started = time.monotonic()
            for _ in range(20):
                status, _, _ = await world.post(told({"max_tokens": 1}))
                assert status == 200
            await asyncio.sleep(1.5)  # the exporter is stuck by now
            status, _, _ = await world.post(told({"max_tokens": 1}))
            took_s = time.monotonic() - started
            ending = time.monotonic()
        ended_s = time.monotonic() - ending
        assert found.spans == []
    assert status == 200
    assert took_s < 10
    assert ended_s < 5


@in_loop
async def test_what_a_collector_refuses_is_counted(tmp_path: Path) -> None:
    with receiver() as found:
        found.status = 400
        async with stack(tmp_path, otlp_endpoint=found.url) as world:
            await world.post(told({"max_tokens": 1}))
            telemetry = world.service.desk.telemetry
            assert telemetry is not None
            async with asyncio.timeout(10):
                while not telemetry.counts()["failed"]:
                    await asyncio.sleep(0.05)
            raw = await world.raw(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b'comptroller_sidecar_telemetry_spans_total{result="failed"} 1.0\n' in raw
    assert b'comptroller_sidecar_telemetry_spans_total{result="dropped"} 0.0\n' in raw


def refusal(n: int) -> RefusedCall:
    now_ns = time.time_ns()
    return RefusedCall(
        trace=NO_TRACE,
        refusal=Refuse(402, "insufficient_quota", "spent", reason="budget_exhausted"),
        request_id=f"request-{n}",
        agent=AGENT,
        started_ns=now_ns,
        ended_ns=now_ns,
    )


def test_a_full_queue_drops_and_counts() -> None:
    with receiver() as found:
        found.hang = threading.Event()
        exporter = Exporter(found.url, version="1")
        total = 4 * MAX_QUEUED
        started = time.monotonic()
        for n in range(total):
            exporter.refused(refusal(n))
        took_s = time.monotonic() - started
        found.hang.set()
        exporter.close(within_s=30)
        counts = exporter.counts()
    assert took_s < 5
    assert counts["failed"] == 0
    assert counts["exported"] == len(found.spans)
    assert counts["exported"] + counts["dropped"] == total
    assert counts["dropped"] > 0


def test_the_sdks_sampler_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.0")
    with receiver() as found:
        exporter = Exporter(found.url, version="1")
        begun = [
            exporter.begin(NO_TRACE),
            exporter.begin(trace_of({b"traceparent": PARENT.encode()})),
        ]
        exporter.close(within_s=5)
    assert begun[0] is None
    assert begun[1] is not None
    assert begun[1].trace_id == TRACE_ID


def test_each_process_is_an_instance_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    instances = set()
    for _ in range(2):
        with receiver() as found:
            exporter = Exporter(found.url, version="1")
            exporter.refused(refusal(1))
            exporter.close(within_s=5)
        assert found.resource["service.name"] == "edge"
        assert found.resource["deployment.environment.name"] == "test"
        instances.add(found.resource["service.instance.id"])
    assert len(instances) == 2


def test_names_are_told_apart() -> None:
    said = {name: value for name, value in vars(names).items() if name.isupper()}
    texts = [value for value in said.values() if isinstance(value, str)]
    assert len(texts) == len(set(texts))
    assert (
        json.dumps(
            [names.operation_of(e) for e in ("chat/completions", "completions", "api/embed")]
        )
        == '["chat", "text_completion", "embeddings"]'
    )
