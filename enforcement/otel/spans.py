"""Ended and refused calls as the attributes of spans and metrics. Nothing here does I/O."""

from collections.abc import Iterator

from opentelemetry.util.types import AttributeValue

from enforcement.otel import names
from enforcement.rules.wire import Outcome
from enforcement.sidecar.telemetry import EndedCall, RefusedCall

Attributes = dict[str, AttributeValue]

_MS_PER_S = 1000
_VERDICTS = {Outcome.CUT: "cut", Outcome.KILLED: "kill", Outcome.CLAMPED: "clamp"}
_FAILED = (Outcome.UPSTREAM_FAILED, Outcome.KILLED)


def span_name(call: EndedCall | RefusedCall) -> str:
    """Operation and model, as the conventions say; a model that no node has is left out."""
    operation = names.operation_of(call.endpoint)
    return f"{operation} {call.model}" if call.model else operation


def error_of(call: EndedCall | RefusedCall) -> str:
    """The kind of error that the call ended in; empty if in none. A cut answer is none."""
    if isinstance(call, RefusedCall):
        return call.refusal.key
    return call.event.outcome.value if call.event.outcome in _FAILED else ""


def shared_attributes(call: EndedCall | RefusedCall) -> Attributes:
    """What spans and metrics both say: of closed sets only, so that series stay few."""
    if isinstance(call, EndedCall):
        event = call.event
        found: Attributes = {
            names.OPERATION: names.operation_of(call.endpoint),
            names.PROVIDER: event.provider or call.engine,
            names.REQUEST_MODEL: event.model,
            names.SERVER_ADDRESS: call.host,
            names.SERVER_PORT: call.port,
        }
    else:
        found = {
            names.OPERATION: names.operation_of(call.endpoint),
            names.PROVIDER: call.engine or "unknown",
        }
        if call.model:
            found[names.REQUEST_MODEL] = call.model
    error = error_of(call)
    if error:
        found[names.ERROR_TYPE] = error
    return found


def ended_attributes(call: EndedCall) -> Attributes:
    """The span of a call that was forwarded."""
    event = call.event
    verdict = _VERDICTS.get(event.outcome, "clamp" if call.clamped else "allow")
    found = shared_attributes(call) | {
        names.AGENT_ID: event.agent,
        names.REQUEST_STREAM: event.stream,
        names.INPUT_TOKENS: event.input_tokens,
        names.OUTPUT_TOKENS: event.output_tokens,
        names.VERDICT: verdict,
        names.OUTCOME: event.outcome.value,
        names.CHARGE_NANOS: event.charge_nanos,
        names.REQUEST_ID: event.id,
        names.NODE: event.node,
        names.ATTEMPT: event.attempt,
        names.ESTIMATED: event.estimated,
        names.PRESUMED: event.presumed,
    }
    found |= dict(_present(call))
    return found | {names.TAG + name: value for name, value in event.tags.items()}


def _present(call: EndedCall) -> Iterator[tuple[str, AttributeValue]]:
    """What only some calls have."""
    event = call.event
    for name, value in (
        (names.CONVERSATION, event.session),
        (names.USER, event.user),
        (names.REQUEST_MAX_TOKENS, call.output_limit),
        (names.RESPONSE_ID, event.upstream_id),
        (names.CACHE_READ_TOKENS, event.cached_input_tokens),
        (names.CACHE_WRITE_TOKENS, event.cache_write_tokens),
        (names.REASONING_TOKENS, event.reasoning_tokens),
        (names.STOPPED_BY, event.stopped_by),
        (names.PRICE_VERSION, event.price_version),
        (names.TOOL_CALLS, event.tool_calls),
        (names.GPU_MS, event.gpu_ms),
    ):
        if value:
            yield name, value
    if event.finish_reason:
        yield names.FINISH_REASONS, (event.finish_reason,)
    if event.stream and event.ttft_ms is not None:
        yield names.FIRST_CHUNK_S, event.ttft_ms / _MS_PER_S


def refused_attributes(call: RefusedCall) -> Attributes:
    """The span of a call that was not forwarded."""
    refusal = call.refusal
    found = shared_attributes(call) | {
        names.AGENT_ID: call.agent,
        names.VERDICT: "refuse",
        names.REASON: refusal.key,
        names.CHARGE_NANOS: 0,
        names.REQUEST_ID: call.request_id,
        names.STATUS_CODE: refusal.status,
    }
    if call.session:
        found[names.CONVERSATION] = call.session
    if refusal.budget is not None:
        found |= {names.BUDGET_ID: refusal.budget.id, names.BUDGET_NAME: refusal.budget.name}
    return found
