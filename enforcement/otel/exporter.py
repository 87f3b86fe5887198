"""Calls out as OpenTelemetry spans and metrics, over OTLP/HTTP, off the way of requests.

1. The event loop only appends to a bounded queue. A full queue drops, and counts what it drops.
2. One thread makes spans of what is queued and sends them; the SDK's own reader sends metrics.
3. A collector that hangs or fails costs spans, never a call.

The SDK's variables hold where nothing here says otherwise: `OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT`,
`…_COMPRESSION`, `…_CERTIFICATE`, `OTEL_METRIC_EXPORT_INTERVAL`.
"""

import logging
import random
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState

from enforcement.otel import names
from enforcement.otel.spans import (
    Attributes,
    ended_attributes,
    error_of,
    refused_attributes,
    shared_attributes,
    span_name,
)
from enforcement.rules.tracecontext import Trace, TraceParent
from enforcement.sidecar.telemetry import EndedCall, RefusedCall

MAX_QUEUED = 4096
BATCH = 64
TURN_S = 0.001  # the event loop waits so long for the interpreter at most, not 5 ms
SEND_EVERY_S = 1.0
_MS = 1_000_000
_NS_PER_S = 1_000_000_000

log = logging.getLogger(__name__)

_Call = EndedCall | RefusedCall


class Exporter:
    """Implements `Telemetry`."""

    def __init__(self, endpoint: str, *, version: str) -> None:
        base = endpoint.rstrip("/")
        resource = _resource(version)
        self._counts: Counter[str] = Counter(exported=0, failed=0, dropped=0)
        self._queue: deque[_Call] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._ids = _Ids()
        self._sender = _Sender(OTLPSpanExporter(endpoint=f"{base}/v1/traces"))
        self._tracing = TracerProvider(
            resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._tracing.add_span_processor(self._sender)
        self._tracer = self._tracing.get_tracer(names.SCOPE, version)
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{base}/v1/metrics"))
        self._metering = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._measures = _Measures(self._metering, version)
        sys.setswitchinterval(TURN_S)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ on the event loop

    def begin(self, trace: Trace) -> TraceParent | None:
        """The span of a call that is forwarded now; None where its trace is not recorded."""
        parent = trace.parent
        trace_id = int(parent.trace_id, 16) if parent else random.getrandbits(128) or 1
        sampled = self._tracing.sampler.should_sample(
            _context_of(trace), trace_id, names.CHAT, SpanKind.CLIENT
        )
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        span_id = random.getrandbits(64) or 1
        flags = (parent.flags if parent else 0) | TraceFlags.SAMPLED
        return TraceParent(f"{trace_id:032x}", f"{span_id:016x}", flags)

    def ended(self, call: EndedCall) -> None:
        """A call that was forwarded has ended."""
        self._put(call)

    def refused(self, call: RefusedCall) -> None:
        """A call was not forwarded."""
        self._put(call)

    def _put(self, call: _Call) -> None:
        queued = len(self._queue)
        if queued >= MAX_QUEUED:
            self._counts["dropped"] += 1
            return
        self._queue.append(call)
        if queued == BATCH:
            self._wake.set()

    def counts(self) -> dict[str, int]:
        """Spans by what became of them: exported, failed, dropped."""
        return dict(self._counts)

    def close(self, *, within_s: float) -> None:
        """Send what is left, but wait no longer than this. Blocks."""
        deadline = time.monotonic() + within_s
        self._closing = True
        self._wake.set()
        self._thread.join(within_s)
        left_ms = max(int((deadline - time.monotonic()) * 1000), 1)
        closing = threading.Thread(target=self._shut_down, args=(left_ms,), daemon=True)
        closing.start()
        closing.join(max(deadline - time.monotonic(), 0.01))

    def _shut_down(self, left_ms: int) -> None:
        self._metering.shutdown(timeout_millis=left_ms)
        self._tracing.shutdown()

    # ------------------------------------------------------------------ on the thread

    def _run(self) -> None:
        while not (self._closing and not self._queue):
            self._wake.wait(SEND_EVERY_S)
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                try:
                    self._send(batch)
                except Exception:
                    log.exception("calls could not be told to the collector")
                    self._counts["failed"] += len(batch)

    def _send(self, batch: list[_Call]) -> None:
        for call in batch:
            self._measures.record(call)
            self._make_span(call)
        sent, total = self._sender.flush()
        self._counts["exported" if sent else "failed"] += total

    def _make_span(self, call: _Call) -> None:
        """The span of a call, through the tracer: it gets the ids that went upstream."""
        if isinstance(call, EndedCall):
            own, start_ns = call.span, call.event.started_at_ms * _MS
            attributes = ended_attributes(call)
        else:
            own, start_ns = self.begin(call.trace), call.started_ns
            attributes = refused_attributes(call)
        if own is None:
            return
        self._ids.preset(own)
        span = self._tracer.start_span(
            span_name(call),
            context=_context_of(call.trace),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=start_ns,
        )
        if error := error_of(call):
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(call.ended_ns)


class _Ids(IdGenerator):
    """Gives the tracer the ids that were told upstream. Used by one thread only."""

    def __init__(self) -> None:
        self._span = self._trace = 0

    def preset(self, own: TraceParent) -> None:
        self._span, self._trace = int(own.span_id, 16), int(own.trace_id, 16)

    def generate_span_id(self) -> int:
        return self._span

    def generate_trace_id(self) -> int:
        return self._trace


class _Sender(SpanProcessor):
    """Gathers the spans of a batch and sends them at once."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def flush(self) -> tuple[bool, int]:
        """Send what was gathered: whether it arrived, and how many there were."""
        spans, self._spans = self._spans, []
        if not spans:
            return True, 0
        return self._export(spans), len(spans)

    def _export(self, spans: Sequence[ReadableSpan]) -> bool:
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Measures:
    """The two histograms."""

    def __init__(self, provider: MeterProvider, version: str) -> None:
        meter = provider.get_meter(names.SCOPE, version)
        self._tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            unit="{token}",
            description="Number of input and output tokens used",
            explicit_bucket_boundaries_advisory=names.TOKEN_BUCKETS,
        )
        self._duration = meter.create_histogram(
            names.OPERATION_DURATION,
            unit="s",
            description="GenAI operation duration",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS_S,
        )

    def record(self, call: _Call) -> None:
        attributes: Attributes = shared_attributes(call)
        if isinstance(call, RefusedCall):
            seconds = (call.ended_ns - call.started_ns) / _NS_PER_S
        else:
            event = call.event
            seconds = (call.ended_ns - event.started_at_ms * _MS) / _NS_PER_S
            for kind, count in (("input", event.input_tokens), ("output", event.output_tokens)):
                self._tokens.record(count, attributes | {names.TOKEN_TYPE: kind})
        self._duration.record(max(seconds, 0.0), attributes)


def _resource(version: str) -> Resource:
    """Who tells. Workers of one sidecar differ in their instance: their sums must not be mixed.

    What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say comes first.
    """
    ours = {
        SERVICE_NAME: names.SERVICE,
        SERVICE_VERSION: version,
        SERVICE_INSTANCE_ID: str(uuid.uuid4()),
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _context_of(trace: Trace) -> Context:
    """The caller's span as the parent; an empty context where it names none."""
    parent = trace.parent
    if parent is None:
        return Context()
    state = TraceState.from_header([trace.state.decode("ascii")]) if trace.state else None
    span = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(parent.flags),
        trace_state=state,
    )
    return set_span_in_context(NonRecordingSpan(span), Context())
