"""A call that has its hold: forward, meter, extend, cut, settle.

1. Nothing is sent upstream before the hold is journaled; nothing is sent twice.
2. A stream goes to the client in whole frames, so it can be ended well at any moment.
3. When nobody shall read on, the client's answer ends at once; the upstream connection is
   half-closed and read for a moment longer, so that what the engine still says of its tokens
   counts.
4. Every end settles the hold exactly once.
"""

import asyncio
from enum import IntEnum

from enforcement.rules.estimate import Bound
from enforcement.rules.lots import Hold
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import Endpoint, forward_body
from enforcement.rules.stream import StreamError, StreamMeter, read_answer
from enforcement.rules.verdicts import Clamped, Cut
from enforcement.rules.wire import Outcome, SessionInfo, UsageEvent
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call
from enforcement.sidecar.answers import (
    DONE,
    cut_events,
    error_events,
    note_of,
    passed_status,
    refusal_of_cut,
    send_refusal,
    upstream_failed,
    with_note,
)
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.front import ClientConnection
from enforcement.sidecar.holding import Holding
from enforcement.sidecar.http1 import ResponseHead
from enforcement.sidecar.settlement import (
    NOTHING,
    Reckoning,
    believable,
    estimated_input,
    final_event,
    presume,
    reckon,
    reckon_stream,
)
from enforcement.sidecar.upstream import UpstreamConnection

EXTRA_EVENTS = 8  # events that carry no token: roles, ends
_NS = 1_000_000_000


class State(IntEnum):
    """Where a forwarded call is."""

    SENT = 0
    STREAMING = 1
    BUFFERING = 2
    DRAINING = 3
    DONE = 4


class Relay:
    """One forwarded call."""

    __slots__ = (
        "_answer",
        "_bound",
        "_call",
        "_clamped",
        "_client",
        "_connection",
        "_desk",
        "_ending",
        "_first_ns",
        "_holding",
        "_id",
        "_limit",
        "_meter",
        "_paused",
        "_rated",
        "_size",
        "_started_ns",
        "_state",
        "_status",
        "_stopped_by",
        "_timer",
        "_written",
    )

    def __init__(
        self,
        desk: Desk,
        client: ClientConnection,
        call: Call,
        *,
        bound: Bound,
        hold: Hold,
        event: UsageEvent,
        output_limit: int,
        covered: int | None,
        clamped: Clamped | None,
        rated_tokens: int,
    ) -> None:
        self._desk = desk
        self._client: ClientConnection | None = client
        self._call = call
        self._bound = bound
        self._holding = Holding(
            desk,
            call,
            bound=bound,
            hold=hold,
            event=event,
            covered=covered,
            again=self._check_again,
        )
        self._id = event.id
        self._limit = output_limit
        self._clamped = clamped
        self._rated = rated_tokens
        self._connection: UpstreamConnection | None = None
        self._state = State.SENT
        self._written = False
        self._status = 0
        self._answer: list[bytes] = []
        self._size = 0
        self._meter: StreamMeter | None = None
        self._paused = False
        self._ending = Outcome.COMPLETED
        self._stopped_by = ""
        self._timer: asyncio.TimerHandle | None = None
        self._started_ns = clock.now_ns()
        self._first_ns = 0

    # ------------------------------------------------------------------ forwarding

    def forward(self, trace: bytes) -> None:
        """Send the rebuilt request upstream."""
        call, upstream, client = self._call, self._call.upstream, self._client
        parsed = call.parsed
        embeds = parsed.endpoint is Endpoint.EMBEDDINGS
        body = forward_body(
            parsed,
            output_limit=None if embeds else self._limit,
            limit_field=upstream.limit_field(parsed),
            extra=upstream.additions(parsed),
        )
        request_id = self._id.encode("ascii")
        headers = b"x-request-id: %b\r\n%b" % (request_id, trace)
        path = b"/v1/" + parsed.endpoint.value.encode("ascii")
        if client is not None:
            client.running = self
        self._desk.live.add(self)
        upstream.running += 1
        head = upstream.request_head(path, length=len(body), headers=headers)
        self._connection = upstream.pool.send(self, [head, body])
        self._written = self._connection is not None

    def on_connected(self, connection: UpstreamConnection) -> bool:
        """A connection was opened for this call; whether it is still wanted."""
        if self._state is State.DONE:
            return False
        self._connection = connection
        self._written = True
        return True

    # ------------------------------------------------------------------ the answer

    def on_head(self, head: ResponseHead) -> None:
        """The upstream answers."""
        self._status = head.status
        self._first_ns = clock.now_ns()
        if self._state is State.DRAINING:
            self._meter = self._meter or StreamMeter()
            return
        content_type = head.headers.get(b"content-type", b"").lower()
        parsed = self._call.parsed
        if head.status == 200 and parsed.stream and content_type.startswith(b"text/event-stream"):
            self._start_stream()
        else:
            self._state = State.BUFFERING

    def _start_stream(self) -> None:
        parsed = self._call.parsed
        request_id = self._id
        note = b"" if self._clamped is None else note_of(self._clamped, request_id=request_id)
        self._meter = StreamMeter(
            strip_usage=not parsed.wants_usage,
            strip_running=not parsed.wants_running_usage,
            strip_timings=not parsed.wants_timings,
            clamp_note=note,
        )
        self._state = State.STREAMING
        if self._client is not None:
            self._client.start_stream(request_id.encode("ascii"))

    def on_body(self, data: bytes) -> None:
        """Bytes of the answer."""
        meter = self._meter
        if self._state is State.STREAMING and meter is not None:
            try:
                piece = meter.feed(data)
            except StreamError as error:
                self._break(str(error))
                return
            if self._client is not None:
                self._client.write_piece(piece)
            self._check_meter(meter)
        elif self._state is State.DRAINING:
            if meter is not None:
                meter.feed(data)
        else:
            self._size += len(data)
            if self._size > self._desk.config.max_answer_bytes:
                self._break("the upstream's answer is too large")
            else:
                self._answer.append(data)

    def on_end(self) -> None:
        """The answer is complete."""
        if self._state is State.STREAMING:
            self._end_stream()
        elif self._state is State.DRAINING:
            self._end_drain(complete=True)
        elif self._state is not State.DONE:
            self._end_answer()

    def on_failure(self, reason: str, *, sent: bool) -> None:
        """The upstream did not finish what it began."""
        if self._state is State.DONE:
            return
        kind = "died" if self._status else "unreachable"
        if sent and not self._status:
            kind = "hung" if "in time" in reason else "no_answer"
        self._desk.metrics.upstream_failures[self._call.upstream.name, kind] += 1
        if self._state is State.DRAINING:
            self._end_drain(complete=False)
        elif not sent:
            self._fail(
                reason, status=502, code="upstream_unreachable", owed=reckon(self._call, NOTHING)
            )
        elif self._state is State.STREAMING:
            self._end_broken_stream(reason)
        else:
            status = 504 if kind == "hung" else 502
            code = "upstream_timeout" if kind == "hung" else "upstream_failed"
            self._fail(reason, status=status, code=code, owed=self._presumed())

    # ------------------------------------------------------------------ whole answers

    def _end_answer(self) -> None:
        body = b"".join(self._answer)
        if self._status != 200:
            self._end_refused(body)
            return
        answer = read_answer(body)
        if not answer.valid:
            self._desk.metrics.upstream_failures[self._call.upstream.name, "not_json"] += 1
            self._fail(
                "the upstream's answer is not JSON",
                status=502,
                code="upstream_failed",
                owed=self._presumed(),
            )
            return
        if answer.usage is not None and believable(answer.usage, self._bound):
            owed = reckon(self._call, answer.usage)
        else:
            self._desk.metrics.disputed += answer.disputed or answer.usage is not None
            owed = self._presumed()
        outcome = Outcome.CLIENT_GONE if self._client is None else Outcome.COMPLETED
        if self._clamped is not None and answer.finish_reason == "length":
            outcome = Outcome.CLAMPED
            body = with_note(body, note_of(self._clamped, request_id=self._id))
        self._settle(owed, outcome, finish_reason=answer.finish_reason, upstream_id=answer.id)
        if self._client is not None:
            headers = b"x-request-id: %b\r\n" % self._id.encode("ascii")
            self._client.respond(200, body, headers=headers)

    def _end_refused(self, body: bytes) -> None:
        """The engine did not do the work: its reason is passed on, nothing is owed."""
        self._desk.metrics.upstream_failures[
            self._call.upstream.name, f"status_{self._status // 100}xx"
        ] += 1
        self._settle(reckon(self._call, NOTHING), Outcome.UPSTREAM_FAILED, requests=0)
        if self._client is None:
            return
        status = passed_status(self._status, body)
        if status:
            headers = b"x-request-id: %b\r\n" % self._id.encode("ascii")
            self._client.respond(status, body, headers=headers)
            return
        refusal = upstream_failed(
            f"The upstream refused the call with {self._status}",
            status=502,
            code="upstream_refused",
        )
        send_refusal(self._client, refusal, request_id=self._id)

    def _fail(self, reason: str, *, status: int, code: str, owed: Reckoning) -> None:
        requests = 1 if owed.presumed else 0
        self._settle(owed, Outcome.UPSTREAM_FAILED, requests=requests)
        if self._client is not None:
            refusal = upstream_failed(reason.capitalize(), status=status, code=code)
            send_refusal(self._client, refusal, request_id=self._id)

    def _break(self, reason: str) -> None:
        """The answer makes no sense: stop it."""
        if self._connection is not None:
            self._connection.drop()
        self.on_failure(reason, sent=True)

    # ------------------------------------------------------------------ streams

    def _end_stream(self) -> None:
        meter = self._meter
        assert meter is not None  # noqa: S101 -- a stream has a meter
        rest = meter.end()
        if not meter.done:
            rest += DONE  # some engines end without it; clients wait for it
        reason = meter.finish_reason
        clamped = self._clamped is not None and reason == "length"
        self._resume()
        self._settle(
            reckon_stream(self._call, self._bound, meter, complete=True),
            Outcome.CLAMPED if clamped else Outcome.COMPLETED,
            finish_reason=reason,
            upstream_id=meter.named()[0],
        )
        if self._client is not None:
            self._client.end_stream(rest)

    def _end_broken_stream(self, reason: str) -> None:
        meter = self._meter
        assert meter is not None  # noqa: S101 -- a stream has a meter
        self._settle(
            reckon_stream(self._call, self._bound, meter, complete=False),
            Outcome.UPSTREAM_FAILED,
            upstream_id=meter.named()[0],
        )
        if self._client is not None:
            refusal = upstream_failed(reason.capitalize(), status=502, code="upstream_failed")
            self._client.end_stream(error_events(refusal, request_id=self._id))

    def _check_meter(self, meter: StreamMeter) -> None:
        """Stop an engine that goes beyond its limit, or beyond what its budgets pay for."""
        produced = meter.produced
        slack = EXTRA_EVENTS if meter.running is None else 0
        if produced > self._bound.output_tokens + slack:
            self.cut(Cut("limit_ignored", "The engine produced more than it was asked for"))
        elif not meter.done:
            cut = self._holding.check(produced)
            if cut is not None:
                self.cut(cut)

    def _check_again(self) -> None:
        if self._state is State.STREAMING and self._meter is not None:
            self._check_meter(self._meter)

    # ------------------------------------------------------------------ ends from outside

    def cut(self, cut: Cut) -> None:
        """End the answer now, by an order or a budget."""
        if self._state in (State.DRAINING, State.DONE):
            return
        self._stopped_by = cut.order or (cut.budget.id if cut.budget else cut.reason)
        self._ending = Outcome.KILLED if cut.order else Outcome.CUT
        self._desk.metrics.count_cut(cut.reason)
        client, self._client = self._client, None
        if client is not None:
            if self._state is State.STREAMING:
                client.end_stream(self._last_events(cut))
            else:
                send_refusal(client, refusal_of_cut(cut), request_id=self._id)
        self._drain()

    def _last_events(self, cut: Cut) -> bytes:
        meter, call = self._meter, self._call
        assert meter is not None  # noqa: S101 -- a stream has a meter
        usage = None
        if call.parsed.wants_usage:
            counted = meter.usage or TokenUsage(input_tokens=estimated_input(call, self._bound))
            usage = {
                "prompt_tokens": counted.input_tokens,
                "completion_tokens": meter.produced,
                "total_tokens": counted.input_tokens + meter.produced,
            }
        return cut_events(
            cut,
            endpoint=call.parsed.endpoint,
            named=meter.named(),
            request_id=self._id,
            output_tokens=meter.produced,
            usage=usage,
        )

    def client_gone(self) -> None:
        """Nobody reads any more. A stream is stopped; a whole answer is soon complete anyway."""
        self._client = None
        if self._state in (State.DRAINING, State.DONE):
            return
        self._ending = Outcome.CLIENT_GONE
        if self._call.parsed.stream:
            self._drain()
        else:
            self._resume()

    def _drain(self) -> None:
        """Half-close the upstream connection and count what it still says."""
        connection = self._connection
        if not self._written or connection is None:
            self._settle(reckon(self._call, NOTHING), self._ending, requests=0)
            return
        self._state = State.DRAINING
        self._holding.forget()
        if not connection.half_close():
            connection.drop()
            self._end_drain(complete=False)
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._desk.config.drain_timeout, self._drained)

    def _drained(self) -> None:
        self._timer = None
        if self._connection is not None:
            self._connection.drop()
        if self._state is State.DRAINING:
            self._end_drain(complete=False)

    def _end_drain(self, *, complete: bool) -> None:
        meter = self._meter
        if meter is not None:
            meter.end()
            owed = reckon_stream(self._call, self._bound, meter, complete=complete and meter.done)
        elif self._call.parsed.stream:  # not a byte came: the prompt may have been read
            prompt = TokenUsage(input_tokens=estimated_input(self._call, self._bound))
            owed = reckon(self._call, prompt, estimated=True)
        else:
            owed = self._presumed()
        self._settle(owed, self._ending, finish_reason=meter.finish_reason if meter else "")

    def _presumed(self) -> Reckoning:
        return presume(self._call, self._bound, output_tokens=self._holding.covered)

    # ------------------------------------------------------------------ settling

    def _settle(
        self,
        owed: Reckoning,
        outcome: Outcome,
        *,
        finish_reason: str = "",
        upstream_id: str = "",
        requests: int = 1,
    ) -> None:
        """Book the end of the call, once."""
        if self._state is State.DONE:
            return
        self._state = State.DONE
        call, now_ns = self._call, clock.now_ns()
        event = final_event(
            self._holding.event,
            owed,
            outcome=outcome,
            duration_ns=now_ns - self._started_ns,
            first_byte_ns=self._first_ns - self._started_ns if self._first_ns else None,
            finish_reason=finish_reason,
            stopped_by=self._stopped_by or self._clamped_by(outcome),
            upstream_id=upstream_id,
        )
        self._holding.settle(owed, event, requests=requests, now_ns=now_ns)
        call.agent.refund_tokens(self._rated - owed.usage.total_tokens)
        self._leave(event)

    def _clamped_by(self, outcome: Outcome) -> str:
        if outcome is not Outcome.CLAMPED or self._clamped is None or self._clamped.budget is None:
            return ""
        return self._clamped.budget.id

    def _leave(self, event: UsageEvent) -> None:
        desk, metrics = self._desk, self._desk.metrics
        desk.live.discard(self)
        self._call.upstream.running -= 1
        self._holding.forget()
        if self._timer is not None:
            self._timer.cancel()
        metrics.requests[event.endpoint, event.outcome.value] += 1
        metrics.tokens["input"] += event.input_tokens
        metrics.tokens["cached_input"] += event.cached_input_tokens
        metrics.tokens["output"] += event.output_tokens
        metrics.charge_nanos += event.charge_nanos
        metrics.presumed += event.presumed
        metrics.estimated += event.estimated
        metrics.disputed += self._meter is not None and self._meter.disputed
        desk.released()

    # ------------------------------------------------------------------ Running, Live

    def client_paused(self) -> None:
        """The client reads slowly: so does the engine."""
        if self._connection is not None and self._state is State.STREAMING:
            self._paused = True
            self._connection.pause_reading()

    def client_resumed(self) -> None:
        """The client has caught up."""
        self._resume()

    def _resume(self) -> None:
        if self._paused and self._connection is not None:
            self._connection.resume_reading()
        self._paused = False

    def check_deadline(self, now_ns: int) -> None:
        """No call runs longer than the configured time."""
        if now_ns - self._started_ns > self._desk.config.request_timeout * _NS:
            self.cut(Cut("request_timeout", "The request ran longer than is allowed"))

    @property
    def agent_id(self) -> str:
        return self._call.agent.policy.id

    @property
    def streaming(self) -> bool:
        return self._state is State.STREAMING

    @property
    def produced(self) -> int:
        return self._meter.produced if self._meter is not None else 0

    @property
    def finished(self) -> bool:
        return self._state is State.DONE

    def session_info(self, now_ms: int) -> SessionInfo | None:
        """This call as the live pages show it."""
        call = self._call
        usage = TokenUsage(
            input_tokens=min(estimated_input(call, self._bound), self._bound.input_tokens),
            output_tokens=self.produced,
        )
        return SessionInfo(
            agent=self.agent_id,
            session=call.caller.session,
            model=call.parsed.model,
            node=call.upstream.name,
            running=1,
            output_tokens=usage.output_tokens,
            charge_nanos=reckon(call, usage).charge_nanos,
            age_ms=now_ms - self._holding.event.started_at_ms,
        )

    def presumed_event(self) -> tuple[int, UsageEvent] | None:
        """The hold, and what to book if nothing else is heard of it."""
        return (
            (self._holding.hold.id, self._holding.event) if self._state is not State.DONE else None
        )
