"""A call that has its hold: sent upstream once, settled once, seen by orders and live pages.

Nothing is sent upstream before the hold is journaled, nothing is sent twice, and every end
settles the hold exactly once. What the upstream answers is the business of `relay`.
"""

import asyncio
import time
from abc import ABC, abstractmethod

from msgspec.structs import replace

from enforcement.rules.estimate import Bound
from enforcement.rules.frames import Meter
from enforcement.rules.lots import Hold
from enforcement.rules.tracecontext import TraceParent
from enforcement.rules.verdicts import Clamped, Cut
from enforcement.rules.wire import Outcome, SessionInfo, UsageEvent
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call
from enforcement.sidecar.adoption import Adoption
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.front import ClientConnection
from enforcement.sidecar.holding import Holding
from enforcement.sidecar.http1 import ResponseHead
from enforcement.sidecar.policy import PolicyView
from enforcement.sidecar.settlement import Reckoning, final_event, presume, session_info
from enforcement.sidecar.telemetry import EndedCall, Telemetry
from enforcement.sidecar.upstream import UpstreamConnection

STOP_MS = 1_000  # engine time held beyond a call's deadline: what its stop may take
_NS_PER_MS = 1_000_000


class State:
    """Where a forwarded call is. Plain numbers: they are looked at for every chunk."""

    SENT = 0
    STREAMING = 1
    BUFFERING = 2
    DRAINING = 3
    DONE = 4


class Forwarded(ABC):
    """One forwarded call: what it holds, how it is sent, how it ends in the books."""

    # What most calls never change: no instance holds it until it does.
    _younger: Adoption | None = None
    _connection: UpstreamConnection | None = None
    _state = State.SENT
    _written = False
    _status = 0
    _size = 0
    _meter: Meter | None = None
    _called = 0  # tool calls in the answer
    _paused = False
    _ending = Outcome.COMPLETED
    _stopped_by = ""
    _span: TraceParent | None = None  # ours, where the trace of the call is recorded
    _timer: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None
    _first_ns = 0

    def __init__(
        self,
        desk: Desk,
        client: ClientConnection,
        call: Call,
        *,
        bound: Bound,
        bounded: bool,
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
        self._holding = Holding(
            desk,
            call,
            bound=bound,
            bounded=bounded,
            hold=hold,
            event=event,
            covered=covered,
            again=self._check_again,
        )
        self._id = event.id
        self._limit = output_limit
        self._clamped = clamped
        self._rated = rated_tokens
        self._answer: list[bytes] = []
        self._started_ns = clock.now_ns()

    # ------------------------------------------------------------------ forwarding

    def forward(self) -> None:
        """Send the rebuilt request upstream."""
        call, upstream, client = self._call, self._call.upstream, self._client
        dialect = call.dialect
        body = dialect.forward_body(
            upstream.as_sent(call.parsed, priority=call.priority),
            output_limit=self._limit if dialect.generates else None,
            engine=upstream.engine,
        )
        request_id = self._id.encode("ascii")
        trace, telemetry = call.caller.trace, self._desk.telemetry
        if telemetry is not None:
            self._span = telemetry.begin(trace)
        lines = trace.lines(self._span, abroad=not upstream.target.local) + call.passed
        headers = b"x-request-id: %b\r\n%b" % (request_id, lines)
        path = dialect.upstream_path.encode("ascii")
        if client is not None:
            client.running = self
        self._desk.live.add(self)
        upstream.running += 1
        upstream.breaker.begin(self._started_ns)
        head = upstream.request_head(path, length=len(body), headers=headers)
        self._connection = upstream.pool.send(self, [head, body])
        self._written = self._connection is not None
        if call.plan.timed:  # what is held pays for so long and no longer
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._time_ms / 1000, self._time_is_up)

    def on_connected(self, connection: UpstreamConnection) -> bool:
        """A connection was opened for this call; whether it is still wanted."""
        if self._state == State.DONE:
            return False
        self._connection = connection
        self._written = True
        return True

    # ------------------------------------------------------------------ what a relay answers

    @abstractmethod
    def on_head(self, head: ResponseHead) -> None:
        """The upstream answers."""

    @abstractmethod
    def on_body(self, data: bytes) -> None:
        """Bytes of the answer."""

    @abstractmethod
    def on_end(self) -> None:
        """The answer is complete."""

    @abstractmethod
    def on_failure(self, reason: str, *, sent: bool, closed: bool = False) -> None:
        """The upstream did not finish what it began."""

    @abstractmethod
    def cut(self, cut: Cut) -> None:
        """End the answer now, by an order or a budget."""

    @abstractmethod
    def client_gone(self) -> None:
        """Nobody reads any more."""

    @abstractmethod
    def _check_again(self) -> None:
        """More may be held now."""

    def _presumed(self) -> Reckoning:
        return presume(self._call, self._holding.bound, output_tokens=self._holding.covered)

    # ------------------------------------------------------------------ a later policy

    def adopt(self, view: PolicyView) -> None:
        """Hold on the budgets that this call matches now and holds nothing on (L12)."""
        if self._state in (State.DRAINING, State.DONE):
            return
        call, holding = self._call, self._holding
        call.follow(view)
        cut = view.measures.cut(call.measures)
        if cut is not None:
            self.cut(cut)
            return
        if call.price is not None:
            holding.event = replace(holding.event, price_version=call.price.id)
        held = holding.hold.parts
        pairs = zip(call.plan.budgets, call.balances, strict=True)
        younger = {key: budget for budget, key in pairs if key not in held}
        if self._younger is None:
            if not younger:
                return
            self._younger = Adoption(
                self._desk, call, holding, produced=lambda: self.produced, cut=self.cut
            )
        usage = self._meter.usage if self._meter is not None else None
        if usage is not None and call.parsed.prompts * call.parsed.sequences == 1:
            holding.sharpen(usage.input_tokens)
        self._younger.seek(younger)

    def _ask_no_more(self) -> None:
        self._holding.forget()
        if self._younger is not None:
            self._younger.forget()

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
        if self._state == State.DONE:
            return
        self._state = State.DONE
        call, now_ns = self._call, clock.now_ns()
        event = final_event(
            self._holding.event,
            owed,
            outcome=outcome,
            gpu_ms=self._gpu_ms(owed, requests=requests, now_ns=now_ns),
            tool_calls=self._tool_calls(owed),
            duration_ns=now_ns - self._started_ns,
            first_byte_ns=self._first_ns - self._started_ns if self._first_ns else None,
            finish_reason=finish_reason,
            stopped_by=self._stopped_by or self._clamped_by(outcome),
            upstream_id=upstream_id,
        )
        self._holding.settle(owed, event, requests=requests, now_ns=now_ns)
        call.agent.refund_tokens(self._rated - owed.usage.total_tokens)
        self._leave(event)

    def _gpu_ms(self, owed: Reckoning, *, requests: int, now_ns: int) -> int:
        """Engine time so far, times the accelerators of the node."""
        if owed.presumed:
            return self._holding.bound.gpu_ms
        took_ms = -(-(now_ns - self._started_ns) // _NS_PER_MS)
        return took_ms * self._desk.config.accelerators if requests else 0

    def _tool_calls(self, owed: Reckoning) -> int:
        """The tool calls that reached the agent; a budget lets no more of them pass than held."""
        bound = self._holding.bound.tool_calls
        if owed.presumed:
            return bound
        return min(self._called, bound) if self._counts_calls else self._called

    @property
    def _counts_calls(self) -> bool:
        """Whether a budget holds for tool calls."""
        return self._call.plan.counts_calls

    def _clamped_by(self, outcome: Outcome) -> str:
        if outcome is not Outcome.CLAMPED or self._clamped is None or self._clamped.budget is None:
            return ""
        return self._clamped.budget.id

    def _leave(self, event: UsageEvent) -> None:
        desk, metrics = self._desk, self._desk.metrics
        if desk.telemetry is not None:
            self._tell(desk.telemetry, event)
        desk.live.discard(self)
        self._call.upstream.running -= 1
        if self._call.slot is not None:
            self._call.give_back_slot()
        self._ask_no_more()
        if self._timer is not None:
            self._timer.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        metrics.requests[event.endpoint, event.outcome] += 1
        metrics.input_tokens += event.input_tokens
        metrics.cached_input_tokens += event.cached_input_tokens
        metrics.output_tokens += event.output_tokens
        metrics.charge_nanos += event.charge_nanos
        metrics.presumed += event.presumed
        metrics.estimated += event.estimated
        metrics.disputed += self._meter is not None and self._meter.disputed
        desk.released()

    def _tell(self, telemetry: Telemetry, event: UsageEvent) -> None:
        upstream = self._call.upstream
        telemetry.ended(
            EndedCall(
                span=self._span,
                trace=self._call.caller.trace,
                event=event,
                ended_ns=time.time_ns(),
                output_limit=self._limit,
                clamped=self._clamped is not None,
                engine=upstream.engine.value,
                host=upstream.target.host,
                port=upstream.target.port,
            )
        )

    # ------------------------------------------------------------------ Running, Live

    def client_paused(self) -> None:
        """The client reads slowly: so does the engine."""
        if self._connection is not None and self._state == State.STREAMING:
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
        """No call runs longer than its time."""
        if now_ns - self._started_ns > self._time_ms * _NS_PER_MS:
            self._time_is_up()

    @property
    def _time_ms(self) -> int:
        """How long the call may run: what its hold of engine time pays for, less the stop."""
        return self._holding.bound.gpu_ms // self._desk.config.accelerators - STOP_MS

    def _time_is_up(self) -> None:
        self.cut(Cut("request_timeout", "The request ran longer than is allowed"))

    def freeze(self) -> None:
        """Go on within what is held, and no further."""
        self._holding.frozen = True

    @property
    def waits(self) -> bool:
        return False

    @property
    def call(self) -> Call:
        return self._call

    @property
    def agent_id(self) -> str:
        return self._call.agent.policy.id

    @property
    def streaming(self) -> bool:
        return self._state == State.STREAMING

    @property
    def produced(self) -> int:
        return self._meter.produced if self._meter is not None else 0

    @property
    def finished(self) -> bool:
        return self._state == State.DONE

    def session_info(self, now_ms: int) -> SessionInfo | None:
        """This call as the live pages show it."""
        event = self._holding.event
        return session_info(
            self._call, self._holding.bound, event, produced=self.produced, now_ms=now_ms
        )

    def presumed_event(self) -> tuple[int, UsageEvent] | None:
        """The hold, and what to book if nothing else is heard of it."""
        return (self._holding.hold.id, self._holding.event) if self._state != State.DONE else None
