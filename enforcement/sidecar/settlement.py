"""How a request ends in the books: usage, charge, event.

The engine's own figures win. Without them the charge is counted by us (`estimated`), and where
nothing can be counted the whole hold is charged (`presumed`); nothing is ever forgotten.
"""

from typing import NamedTuple

from msgspec.structs import replace

from enforcement.rules.dialects.ollama import LOADED
from enforcement.rules.estimate import Bound, amount_of
from enforcement.rules.frames import Answer, Meter
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.policy import PricePolicy, Unit
from enforcement.rules.wire import Outcome, SessionInfo, UsageEvent
from enforcement.sidecar.admission import Call

NOTHING = TokenUsage()
_FRAMES_PER_TOKEN = 2  # tool calls and roles may take a frame beside the token's own
_EXTRA_FRAMES = 16
_NS_PER_MS = 1_000_000
_DOUBT = 4  # a usage of so many times its bound is a lie, not an overrun
_DOUBT_TOKENS = 4096


class Reckoning(NamedTuple):
    """What a request is charged, and how sure that is."""

    usage: TokenUsage
    charge_nanos: int
    presumed: bool = False
    estimated: bool = False


def first_event(
    call: Call,
    bound: Bound,
    *,
    output_tokens: int,
    whole_nanos: int | None,
) -> UsageEvent:
    """The event that is booked if nothing else is ever heard of the request.

    Its id, its time and which attempt it is are to come.

    `whole_nanos`: the charge for all of the bound, where it has been computed already.
    """
    usage = TokenUsage(input_tokens=bound.input_tokens, output_tokens=output_tokens)
    if whole_nanos is not None and output_tokens == bound.output_tokens:
        presumed = Reckoning(usage, whole_nanos, presumed=True)
    else:
        presumed = presume(call, bound, output_tokens=output_tokens)
    parsed = call.parsed
    return UsageEvent(
        id="",
        agent=call.agent.policy.id,
        model=parsed.model,
        started_at_ms=0,
        outcome=Outcome.UPSTREAM_FAILED,
        session=call.caller.session,
        user=parsed.user,
        provider=call.upstream.provider,
        node=call.upstream.name,
        skill=call.caller.skill,
        endpoint=parsed.endpoint.value,
        stream=parsed.stream,
        tags=call.caller.tags,
        input_tokens=presumed.usage.input_tokens,
        output_tokens=presumed.usage.output_tokens,
        gpu_ms=bound.gpu_ms,
        tool_calls=bound.tool_calls,
        charge_nanos=presumed.charge_nanos,
        price_version=call.price.id if call.price else "",
        presumed=True,
    )


def presume(call: Call, bound: Bound, *, output_tokens: int) -> Reckoning:
    """The whole hold: what the engine may have done unheard."""
    usage = TokenUsage(input_tokens=bound.input_tokens, output_tokens=output_tokens)
    charge = 0
    if call.price is not None:
        charge = amount_of(Unit.USD, bound, output_tokens=output_tokens, price=call.price)
    return Reckoning(usage, charge, presumed=True)


def reckon(call: Call, usage: TokenUsage, *, estimated: bool = False) -> Reckoning:
    """The charge for known usage."""
    return Reckoning(usage, _charge(usage, call.price), estimated=estimated)


def believable(usage: TokenUsage, bound: Bound) -> bool:
    """Whether an engine can have done this at all; else its figures are no evidence."""
    most_input = bound.window_tokens or bound.input_tokens
    return (
        usage.input_tokens <= _DOUBT * most_input + _DOUBT_TOKENS
        and usage.output_tokens <= _DOUBT * bound.output_tokens + _DOUBT_TOKENS
    )


def _told(said: Answer | Meter, bound: Bound) -> TokenUsage | None:
    """The engine's own usage, if it can be true.

    A prompt of no tokens was not counted, unless none was to be read, or a model was loaded and
    nothing more was done.
    """
    usage = said.usage
    if usage is None or not believable(usage, bound):
        return None
    silent = bound.window_tokens is None and not bound.input_tokens
    counted = usage.input_tokens > 0 or said.input_missing or said.finish_reason in LOADED or silent
    return usage if counted else None


def reckon_answer(
    call: Call, bound: Bound, answer: Answer, *, output_tokens: int
) -> tuple[Reckoning, bool]:
    """The charge for a whole answer, and whether its usage cannot be true."""
    usage = _told(answer, bound)
    if usage is not None:
        if answer.input_missing:
            usage = replace(usage, input_tokens=estimated_input(call, bound))
        return reckon(call, usage, estimated=answer.input_missing), False
    disputed = answer.disputed or answer.usage is not None
    return presume(call, bound, output_tokens=output_tokens), disputed


def reckon_stream(
    call: Call, bound: Bound, meter: Meter, *, complete: bool, unheard: int = 0
) -> Reckoning:
    """The charge for a stream, whole or not.

    An engine that was told to stop makes a few more tokens before it does, and nobody sees them.
    They are charged too, up to the limit that stands in the request: what the engine made must
    never be more than what the ledger counts. A provider puts several tokens into an event and
    thinks unseen: each byte of its text counts, or the whole limit where it may have thought.

    `unheard`: the tokens that are held for an engine that nobody heard stop. It may go on making
    them, so all of them are charged (L2: `strict` trusts no engine's stop).
    """
    usage, estimated = _stream_usage(call, bound, meter)
    if complete:
        return reckon(call, usage, estimated=estimated)
    most = max(usage.output_tokens, bound.output_tokens)
    made = usage.output_tokens
    if call.upstream.paid and meter.running is None:
        seen = meter.most_made
        made = most if seen is None else max(made, seen)
    unseen = max(min(made + call.upstream.abort_tokens, most), unheard)
    return reckon(call, replace(usage, output_tokens=unseen), estimated=True)


def reckon_unseen(call: Call, bound: Bound, *, unheard: int = 0) -> Reckoning:
    """The charge for a stream that was stopped before its first byte: the engine may have begun.

    `unheard` as for `reckon_stream`.
    """
    made = max(min(call.upstream.abort_tokens, bound.output_tokens), unheard)
    if call.upstream.paid:
        made = bound.output_tokens
    usage = TokenUsage(input_tokens=estimated_input(call, bound), output_tokens=made)
    return reckon(call, usage, estimated=True)


def _stream_usage(call: Call, bound: Bound, meter: Meter) -> tuple[TokenUsage, bool]:
    """What was seen of a stream, and whether that is only our own count."""
    said = _told(meter, bound)
    if said is None:
        read = estimated_input(call, bound)
        made = meter.produced if meter.usage is None else meter.events  # its figures are none
        return TokenUsage(input_tokens=read, output_tokens=made), True
    if meter.input_missing:
        return replace(said, input_tokens=estimated_input(call, bound)), True
    seen = meter.events - _EXTRA_FRAMES
    if seen > said.output_tokens * _FRAMES_PER_TOKEN:  # fewer tokens than were seen
        return replace(said, output_tokens=seen), True
    return said, meter.disputed or meter.counted


def estimated_input(call: Call, bound: Bound) -> int:
    """Prompt tokens when nobody said: exact if they were counted, else a token for each byte.

    Of a prompt that comes from elsewhere too, the bytes say nothing: all that it may be.
    """
    if bound.window_tokens is None or call.parsed.unseen:
        return bound.input_tokens
    return min(bound.window_tokens, len(call.parsed.encoded))


def seen_input(call: Call, bound: Bound, meter: Meter) -> int:
    """Prompt tokens as far as they are known in the middle of a stream."""
    if meter.usage is None or meter.input_missing:
        return estimated_input(call, bound)
    return meter.usage.input_tokens


def session_info(
    call: Call, bound: Bound, event: UsageEvent, *, produced: int, now_ms: int
) -> SessionInfo:
    """A running call as the live pages show it."""
    usage = TokenUsage(input_tokens=estimated_input(call, bound), output_tokens=produced)
    return SessionInfo(
        agent=event.agent,
        session=event.session,
        model=event.model,
        node=event.node,
        running=1,
        output_tokens=produced,
        charge_nanos=_charge(usage, call.price),
        age_ms=now_ms - event.started_at_ms,
    )


def _charge(usage: TokenUsage, price: PricePolicy | None) -> int:
    return charge_nanos(usage, price) if price is not None else 0


def final_event(
    event: UsageEvent,
    owed: Reckoning,
    *,
    outcome: Outcome,
    gpu_ms: int,
    tool_calls: int,
    duration_ns: int,
    first_byte_ns: int | None,
    finish_reason: str,
    stopped_by: str,
    upstream_id: str,
) -> UsageEvent:
    """The event of a call that has ended."""
    usage = owed.usage
    ended = replace(
        event,
        outcome=outcome,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        gpu_ms=gpu_ms,
        tool_calls=tool_calls,
        charge_nanos=owed.charge_nanos,
        presumed=owed.presumed,
        estimated=owed.estimated,
        duration_ms=duration_ns // _NS_PER_MS,
        ttft_ms=None if first_byte_ns is None else first_byte_ns // _NS_PER_MS,
        finish_reason=finish_reason,
        stopped_by=stopped_by,
        upstream_id=upstream_id,
    )
    if usage.plain:
        return ended
    return replace(
        ended,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cache_write_long_tokens=usage.cache_write_long_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        input_image_tokens=usage.input_image_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        service_tier=usage.tier,
    )
