"""Spans of the official OpenTelemetry SDK, over its OTLP/HTTP exporter, to a real web process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.utils import timezone
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

from budgets.domain.prices import set_own_price
from budgets.domain.verify import verify
from budgets.models import Balance, UsageEvent
from controlplane.identity.models import Agent
from enforcement.rules.policy import Rates, Unit
from tests.enforcement.stack import ACTOR, Site

FIRST = {
    "gen_ai.system": "openai",
    "gen_ai.request.model": "toy",
    "gen_ai.usage.prompt_tokens": 14,
    "gen_ai.usage.completion_tokens": 8,
}
SECOND = {
    "gen_ai.operation.name": "chat",
    "gen_ai.system": "openai",
    "gen_ai.response.model": "toy",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
}
THIRD = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.response.model": "toy",
    "gen_ai.response.id": "chatcmpl-0123456789abcdef",
    "gen_ai.agent.id": "a1",
    "gen_ai.conversation.id": "s-1",
    "gen_ai.usage.input_tokens": 1_000,
    "gen_ai.usage.cache_read.input_tokens": 600,
    "gen_ai.usage.output_tokens": 50,
    "gen_ai.usage.reasoning.output_tokens": 30,
}
INFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "toy",
    "llm.provider": "openai",
    "llm.token_count.prompt": 7,
    "llm.token_count.completion": 3,
}


@contextmanager
def tracer(url: str, key: str, *, service: str = "a1", gzip: bool = False) -> Iterator[Tracer]:
    """A tracer whose spans have been exported when the block ends."""
    exporter = OTLPSpanExporter(
        endpoint=f"{url}/v1/traces",
        headers={"Authorization": f"Bearer {key}"},
        compression=Compression.Gzip if gzip else Compression.NoCompression,
    )
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("tests")
    finally:
        provider.shutdown()


def tell(tracer: Tracer, **attributes: Any) -> None:
    with tracer.start_as_current_span("chat toy", attributes=attributes):
        pass


def price(site: Site) -> str:
    rates = Rates(input=1_000_000, cached_input=100_000, output=2_000_000)
    own = set_own_price(
        organization_id=site.organization.id,
        model="toy",
        rates=rates,
        actor=ACTOR,
        now=timezone.now(),
    )
    return str(own.id)


@pytest.mark.parametrize("gzip", [False, True])
def test_three_generations_of_names_and_openinference_are_booked_and_priced(
    site: Site, url: str, key: str, gzip: bool
) -> None:
    version = price(site)
    budget = site.budget(1_000_000, unit=Unit.USD)
    with tracer(url, key, gzip=gzip) as told:
        for said in (FIRST, SECOND, THIRD, INFERENCE):
            tell(told, **said)
    events = list(UsageEvent.objects.order_by("input_tokens"))
    assert [(event.input_tokens, event.output_tokens) for event in events] == [
        (7, 3),
        (14, 8),
        (100, 20),
        (1_000, 50),
    ]
    assert {event.source for event in events} == {"otlp"}
    assert {(event.agent_id, event.provider, event.model) for event in events} == {
        (site.agent.id, "openai", "toy")
    }
    third = events[3]
    assert (third.cached_input_tokens, third.reasoning_tokens, third.session) == (600, 30, "s-1")
    assert (third.upstream_id, third.sidecar) == ("chatcmpl-0123456789abcdef", None)
    assert [event.charge_nanos for event in events] == [13, 30, 140, 560]
    assert {str(event.price_version_id) for event in events} == {version}
    balance = Balance.objects.get(budget=budget)
    assert (balance.spent_amount, balance.held_amount) == (743, 0)
    assert verify().holds


def test_an_agent_that_nobody_knows_loses_no_call(site: Site, url: str, key: str) -> None:
    with tracer(url, key, service="ghost") as told:
        tell(told, **SECOND)
        tell(told, **SECOND)
    events = UsageEvent.objects.all()
    nobody = Agent.objects.get(slug="unattributed")
    assert {event.agent_id for event in events} == {nobody.id}
    assert [event.tags for event in events] == [{"reported_agent": "ghost"}] * 2


def test_sums_of_agents_and_tools_are_not_counted_again(site: Site, url: str, key: str) -> None:
    with (
        tracer(url, key) as told,
        told.start_as_current_span(
            "invoke_agent", attributes=SECOND | {"gen_ai.operation.name": "invoke_agent"}
        ),
    ):
        tell(told, **SECOND)
        tell(told, **(INFERENCE | {"openinference.span.kind": "CHAIN"}))
        tell(told, **{"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"})
        tell(told, **{"http.method": "GET"})
    assert UsageEvent.objects.get().input_tokens == 100
