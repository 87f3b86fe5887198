"""What an upstream answers: passed on, metered, cut, and reckoned.

1. A stream goes to the client in whole frames, so it can be ended well at any moment.
2. When nobody shall read on, the client's answer ends at once; the upstream connection is
   half-closed and read for a moment longer, so that what the engine still says of its tokens
   counts.
"""

import asyncio

from enforcement.rules.breaker import Breaker
from enforcement.rules.frames import Meter, StreamError, with_note
from enforcement.rules.money import TokenUsage
from enforcement.rules.verdicts import MAX_RETRY_AFTER_S, Cut, Refuse, cut_note
from enforcement.rules.wire import Outcome
from enforcement.sidecar import clock
from enforcement.sidecar.admission import elsewhere
from enforcement.sidecar.answers import (
    note_of,
    passed_status,
    refusal_of_cut,
    send_refusal,
    upstream_failed,
)
from enforcement.sidecar.forwarded import Forwarded, State
from enforcement.sidecar.http1 import ResponseHead
from enforcement.sidecar.settlement import (
    NOTHING,
    Reckoning,
    reckon,
    reckon_answer,
    reckon_stream,
    reckon_unseen,
    seen_input,
)

EXTRA_EVENTS = 8  # events that carry no token: roles, ends
WORTH_ANOTHER = frozenset({429, 500, 502, 503, 504, 529})  # refused, and another node may not


class Relay(Forwarded):
    """Takes the upstream's answer to the client."""

    # ------------------------------------------------------------------ the answer

    def on_head(self, head: ResponseHead) -> None:
        """The upstream answers."""
        self._status = head.status
        self._first_ns = clock.now_ns()
        judge_status(self._call.upstream.breaker, head, now_ns=self._first_ns)
        if self._state == State.DRAINING:
            if self._call.parsed.stream and self._meter is None:
                self._meter = self._call.dialect.meter(self._call.parsed)
            return
        content_type = head.headers.get(b"content-type", b"").lower()
        streams = content_type.startswith(self._call.dialect.upstream_stream_type)
        if head.status == 200 and self._call.parsed.stream and streams:
            self._start_stream()
        else:
            self._state = State.BUFFERING

    def _start_stream(self) -> None:
        dialect, request_id = self._call.dialect, self._id
        note = b"" if self._clamped is None else note_of(self._clamped, request_id=request_id)
        self._meter = dialect.meter(self._call.parsed, clamp_note=note)
        self._state = State.STREAMING
        if self._client is not None:
            self._client.start_stream(request_id.encode("ascii"), content_type=dialect.stream_type)

    def on_body(self, data: bytes) -> None:
        """Bytes of the answer."""
        meter = self._meter
        if self._state == State.STREAMING and meter is not None:
            try:
                piece = meter.feed(data)
            except StreamError as error:
                self._break(str(error))
                return
            if meter.tool_calls:
                self._called = meter.tool_calls
                if self._counts_calls and self._called > self._holding.bound.tool_calls:
                    self.cut(_too_many_calls())
                    return
            if self._client is not None:
                self._client.write_piece(piece)
            self._check_meter(meter)
        elif self._state == State.DRAINING and meter is not None:
            meter.feed(data)
        else:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        """A piece of a whole answer; while it drains, only its usage is of interest."""
        self._size += len(data)
        if self._size <= self._desk.config.max_answer_bytes:
            self._answer.append(data)
        elif self._state == State.DRAINING:
            self._give_up()
        else:
            self._break("the upstream's answer is too large")

    def on_end(self) -> None:
        """The answer is complete."""
        if self._state == State.STREAMING:
            self._end_stream()
        elif self._state == State.DRAINING:
            self._end_drain(complete=True, stopped=True)
        elif self._state != State.DONE:
            self._end_answer()

    def on_failure(self, reason: str, *, sent: bool, closed: bool = False) -> None:
        """The upstream did not finish what it began. `closed`: by its own doing, so it stopped."""
        if self._state == State.DONE:
            return
        kind = "died" if self._status else "unreachable"
        if sent and not self._status:
            kind = "hung" if "in time" in reason else "no_answer"
        self._desk.metrics.upstream_failures[self._call.upstream.name, kind] += 1
        if self._state == State.DRAINING:
            self._end_drain(complete=False, stopped=closed)
            return
        self._call.upstream.breaker.fail(clock.now_ns())
        if not sent:
            owed = reckon(self._call, NOTHING)
            if not self._go_elsewhere(owed):
                self._fail(reason, status=502, code="upstream_unreachable", owed=owed)
        elif self._state == State.STREAMING:
            self._end_broken_stream(reason, stopped=closed)
        else:
            status = 504 if kind == "hung" else 502
            code = "upstream_timeout" if kind == "hung" else "upstream_failed"
            if kind != "no_answer" or not self._go_elsewhere(self._presumed()):
                self._fail(reason, status=status, code=code, owed=self._presumed())

    # ------------------------------------------------------------------ whole answers

    def _end_answer(self) -> None:
        body = b"".join(self._answer)
        if self._status != 200:
            self._end_refused(body)
            return
        dialect = self._call.dialect
        answer = dialect.read_answer(body)
        if not answer.valid:
            self._desk.metrics.upstream_failures[self._call.upstream.name, "not_json"] += 1
            self._fail(
                "the upstream's answer is not JSON",
                status=502,
                code="upstream_failed",
                owed=self._presumed(),
            )
            return
        owed, disputed = reckon_answer(
            self._call, self._holding.bound, answer, output_tokens=self._holding.covered
        )
        self._desk.metrics.disputed += disputed
        self._called = answer.tool_calls
        outcome = Outcome.CLIENT_GONE if self._client is None else Outcome.COMPLETED
        body = dialect.answer_body(body)
        if self._clamped is not None and self._is_limited(answer.limited, answer.usage):
            outcome = Outcome.CLAMPED
            body = with_note(body, note_of(self._clamped, request_id=self._id))
        too_many = self._counts_calls and self._called > self._holding.bound.tool_calls
        if too_many:
            self._stopped_by, outcome, self._called = "tool_calls", Outcome.CUT, 0
        self._settle(owed, outcome, finish_reason=answer.finish_reason, upstream_id=answer.id)
        if too_many:
            self._refuse(refusal_of_cut(_too_many_calls()))
        elif self._client is not None:
            headers = b"x-request-id: %b\r\n" % self._id.encode("ascii")
            self._client.respond(200, body, headers=headers)

    def _end_refused(self, body: bytes) -> None:
        """The engine did not do the work: its reason is passed on, nothing is owed."""
        self._desk.metrics.upstream_failures[
            self._call.upstream.name, f"status_{self._status // 100}xx"
        ] += 1
        owed = reckon(self._call, NOTHING)
        if self._status in WORTH_ANOTHER and self._go_elsewhere(owed):
            return
        self._settle(owed, Outcome.UPSTREAM_FAILED, requests=0)
        if self._client is None:
            return
        status = passed_status(self._status, body)
        if status:
            headers = b"x-request-id: %b\r\n" % self._id.encode("ascii")
            body = self._call.dialect.error_body(body)
            self._client.respond(status, body, headers=headers)
            return
        refusal = upstream_failed(
            f"The upstream refused the call with {self._status}",
            status=502,
            code="upstream_refused",
        )
        self._refuse(refusal)

    def _refuse(self, refusal: Refuse) -> None:
        """Tell the client, if there still is one."""
        if self._client is not None:
            send_refusal(self._client, refusal, request_id=self._id, dialect=self._call.dialect)

    def _is_limited(self, said: bool, usage: TokenUsage | None) -> bool:
        """Whether the limit ended the answer. Some engines do not say so, but their counts do."""
        return said or (
            usage is not None and usage.output_tokens >= self._holding.bound.output_tokens
        )

    def _fail(self, reason: str, *, status: int, code: str, owed: Reckoning) -> None:
        requests = 1 if owed.presumed else 0
        self._settle(owed, Outcome.UPSTREAM_FAILED, requests=requests)
        self._refuse(upstream_failed(reason.capitalize(), status=status, code=code))

    def _break(self, reason: str) -> None:
        """The answer makes no sense: stop it."""
        if self._connection is not None:
            self._connection.drop()
        self.on_failure(reason, sent=True)

    def _go_elsewhere(self, owed: Reckoning) -> bool:
        """Try another node, while nothing has reached the client: whether there is one.

        This attempt is settled with what it owes, and the next one, with a hold of its own, is
        placed before anybody else hears of what this one frees.
        """
        desk, call, client = self._desk, self._call, self._client
        if client is None or len(call.tried) + 1 >= desk.config.attempts:
            return False
        if desk.view is None or desk.ready(now_ns=clock.now_ns()) is not None:
            return False
        moved = elsewhere(desk.view, desk.router, call)
        if moved is None:
            return False
        desk.metrics.retries[call.upstream.name] += 1
        with desk.swapping():
            self._client = client.running = None
            self._settle(owed, Outcome.UPSTREAM_FAILED, requests=1 if owed.presumed else 0)
            desk.begin(client, moved, clock.new_id())
        return True

    # ------------------------------------------------------------------ streams

    def _end_stream(self) -> None:
        meter = self._meter
        assert meter is not None  # noqa: S101 -- a stream has a meter
        rest = meter.end() + meter.missing_end()
        if not meter.whole:
            self._end_broken_stream("the upstream ended its answer early", stopped=True)
            return
        reason = meter.finish_reason
        clamped = self._clamped is not None and self._is_limited(meter.limited, meter.usage)
        self._resume()
        self._settle(
            reckon_stream(self._call, self._holding.bound, meter, complete=True),
            Outcome.CLAMPED if clamped else Outcome.COMPLETED,
            finish_reason=reason,
            upstream_id=meter.id,
        )
        if self._client is not None:
            self._client.end_stream(rest)

    def _end_broken_stream(self, reason: str, *, stopped: bool) -> None:
        meter = self._meter
        assert meter is not None  # noqa: S101 -- a stream has a meter
        unheard = 0 if stopped else self._holding.covered
        self._settle(
            reckon_stream(self._call, self._holding.bound, meter, complete=False, unheard=unheard),
            Outcome.UPSTREAM_FAILED,
            upstream_id=meter.id,
        )
        if self._client is not None:
            refusal = upstream_failed(reason.capitalize(), status=502, code="upstream_failed")
            body = self._call.dialect.refusal_body(refusal, request_id=self._id)
            self._client.end_stream(meter.error_ending(body))

    def _check_meter(self, meter: Meter) -> None:
        """Stop an engine that goes beyond its limit, or beyond what its budgets pay for."""
        produced = meter.produced
        slack = EXTRA_EVENTS if meter.running is None else 0
        if produced > self._holding.bound.output_tokens + slack:
            self.cut(Cut("limit_ignored", "The engine produced more than it was asked for"))
        elif not meter.done:
            cut = self._holding.check(produced)
            if cut is not None:
                self.cut(cut)

    def _check_again(self) -> None:
        if self._state == State.STREAMING and self._meter is not None:
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
            if self._state == State.STREAMING:
                client.end_stream(self._last_events(cut))
            else:
                send_refusal(
                    client,
                    refusal_of_cut(cut),
                    request_id=self._id,
                    dialect=self._call.dialect,
                )
        self._drain()

    def _last_events(self, cut: Cut) -> bytes:
        meter, call = self._meter, self._call
        assert meter is not None  # noqa: S101 -- a stream has a meter
        note = cut_note(cut, request_id=self._id, output_tokens=meter.produced)
        seen = seen_input(call, self._holding.bound, meter) if call.parsed.wants_usage else None
        return meter.cut_ending(note, request_id=self._id, input_tokens=seen)

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
        self._ask_no_more()
        if not connection.half_close():
            connection.drop()
            self._end_drain(complete=False, stopped=False)
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._desk.config.drain_timeout, self._drained)

    def _drained(self) -> None:
        self._timer = None
        self._give_up()

    def _give_up(self) -> None:
        """Nobody heard the engine stop, or can hear what it did."""
        if self._connection is not None:
            self._connection.drop()
        if self._state == State.DRAINING:
            self._end_drain(complete=False, stopped=False)

    def _end_drain(self, *, complete: bool, stopped: bool) -> None:
        """`stopped`: the engine was heard to end. Else it may make all that is held for it."""
        meter, bound = self._meter, self._holding.bound
        unheard = 0 if stopped else self._holding.covered
        if meter is not None:
            meter.end()
            whole = complete and meter.done
            owed = reckon_stream(self._call, bound, meter, complete=whole, unheard=unheard)
        elif self._call.parsed.stream:  # not a byte came: the prompt may have been read
            owed = reckon_unseen(self._call, bound, unheard=unheard)
        elif complete:
            owed = self._whole_answer()
        else:
            owed = self._presumed()
        self._settle(owed, self._ending, finish_reason=meter.finish_reason if meter else "")

    def _whole_answer(self) -> Reckoning:
        """The charge for an answer that was made whole, though nobody waits for it any more."""
        if self._status != 200:
            return reckon(self._call, NOTHING)
        answer = self._call.dialect.read_answer(b"".join(self._answer))
        covered = self._holding.covered
        return reckon_answer(self._call, self._holding.bound, answer, output_tokens=covered)[0]


def _too_many_calls() -> Cut:
    return Cut("tool_calls", "The answer makes more tool calls than the budget pays for")


def judge_status(breaker: Breaker, head: ResponseHead, *, now_ns: int) -> None:
    """What an answer's status says of its node."""
    status = head.status
    if status < 500 and status != 429:
        breaker.succeed()
        return
    if status != 429:
        breaker.fail(now_ns)
    said = head.headers.get(b"retry-after", b"")
    if said.isdigit() and len(said) < 5:
        breaker.rest(now_ns, for_ns=min(int(said), MAX_RETRY_AFTER_S) * 1_000_000_000)
