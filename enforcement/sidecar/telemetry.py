"""What the sidecar tells an observer about each call. No observer, no work.

The base install knows only this interface; `enforcement.otel` implements it with the extra `otel`.
Everything said here is counts, names and times: never a prompt, an answer or a key.
"""

from typing import Protocol

from msgspec import Struct

from enforcement.rules.tracecontext import Trace, TraceParent
from enforcement.rules.verdicts import Refuse
from enforcement.rules.wire import UsageEvent
from enforcement.sidecar.config import Config


class EndedCall(Struct, frozen=True, gc=False):
    """A call that was forwarded. `span`: our own, None where its trace is not recorded.

    `clamped`: its output limit was lowered.
    """

    span: TraceParent | None
    trace: Trace
    event: UsageEvent
    ended_ns: int  # since 1970
    output_limit: int
    clamped: bool
    engine: str
    host: str
    port: int

    @property
    def endpoint(self) -> str:
        return self.event.endpoint

    @property
    def model(self) -> str:
        return self.event.model


class RefusedCall(Struct, frozen=True, gc=False):
    """A call of a known agent that was not forwarded. Times in nanoseconds since 1970."""

    trace: Trace
    refusal: Refuse
    request_id: str
    agent: str
    started_ns: int
    ended_ns: int
    endpoint: str = ""
    model: str = ""  # only where a node serves it: else callers could name what they like
    session: str = ""
    engine: str = ""


class Telemetry(Protocol):
    """Who is told. Every method returns at once and raises nothing."""

    def begin(self, trace: Trace) -> TraceParent | None:
        """The span of a call that is forwarded now; None where its trace is not recorded."""

    def ended(self, call: EndedCall) -> None: ...
    def refused(self, call: RefusedCall) -> None: ...

    def counts(self) -> dict[str, int]:
        """Spans by what became of them: exported, failed, dropped."""

    def close(self, *, within_s: float) -> None:
        """Send what is left, but wait no longer than this. Blocks."""


def telemetry_of(config: Config, *, version: str) -> Telemetry | None:
    """The observer that the configuration names; none by default."""
    if not config.otlp_endpoint:
        return None
    from enforcement.otel.exporter import Exporter  # noqa: PLC0415 -- an extra

    return Exporter(config.otlp_endpoint, version=version)
