"""What the sidecar answers to: model calls, the list of models, health and metrics."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from enforcement.rules.dialects import Dialect, Engine, anthropic, dialect_near, ollama
from enforcement.rules.requests import Body, RequestError, object_of
from enforcement.rules.tracecontext import trace_of
from enforcement.rules.verdicts import Refuse, large_too_soon
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call, RefusedError, admit, identify
from enforcement.sidecar.answers import invalid, send_refusal
from enforcement.sidecar.delegating import END_PATH, PATH, Delegating
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.front import ClientConnection
from enforcement.sidecar.http1 import HttpError, RequestHead
from enforcement.sidecar.placement import Placement
from enforcement.sidecar.policy import PolicyView
from enforcement.sidecar.telemetry import RefusedCall, Telemetry

LARGE_BODY = 64 * 1024
RECEIVING_NS_PER_BYTE = 1  # what a large body takes before it is judged
BROKEN_BODY_NS = 10_000_000  # what reading as many chunks as a body may have takes
SHOW_PATH = b"/api/show"

_TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_encode = msgspec.json.Encoder().encode

log = logging.getLogger(__name__)


class Routes:
    """The handler behind the listener."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.begin = self._begin
        self._pages: dict[bytes, Callable[[ClientConnection, RequestHead], None]] = {
            b"/v1/models": self._models,
            b"/api/tags": self._tags,
            b"/api/version": self._version,
            b"/healthz": self._health,
            b"/readyz": self._readiness,
            b"/metrics": self._metrics,
        }

    # ------------------------------------------------------------------ Handler

    def check_head(self, head: RequestHead) -> None:
        """Refuse a large body, or the rest of it, if nobody known sends it or it is too soon."""
        if head.length is not None and head.length < LARGE_BODY:
            return
        view = self._desk.view
        if view is None or self._desk.router.dialect_at(head.path) is None:
            raise HttpError("a large body for nobody", status=413)
        try:
            agent = identify(view, head.headers, now_ms=clock.now_ms())
        except RefusedError as error:
            raise HttpError(error.refusal.message, status=401) from error
        wait_ns = agent.rates.large_after_ns - clock.now_ns()
        if wait_ns > 0:
            raise HttpError("a large body too soon", status=429, retry_in_ns=wait_ns)

    def handle(self, connection: ClientConnection, head: RequestHead, body: Body) -> None:
        """Answer one request, now or later. Our own errors end this request, not the sidecar."""
        request_id = clock.new_id()
        try:
            dialect = self._desk.router.dialect_at(head.path)
            if dialect is not None and head.method == b"POST":
                self._call(connection, head, body, dialect, request_id)
            elif head.path in (PATH, END_PATH) and head.method == b"POST":
                Delegating(self._desk, connection, request_id=request_id).start(head, body)
            elif head.path == SHOW_PATH and head.method == b"POST":
                self._show(connection, head, body)
            else:
                self._page(connection, head, request_id)
        except RequestError as error:
            refusal = invalid(str(error), code=error.code, param=error.param)
            near = dialect_near(head.path)
            send_refusal(connection, refusal, request_id=request_id, dialect=near)
        except RefusedError as error:
            agent = error.agent.policy.id if error.agent else ""
            self._desk.count_refusal(error.refusal, agent=agent, model=error.model)
            if agent and self._desk.telemetry is not None:
                self._tell(self._desk.telemetry, head, error, request_id)
            near = dialect_near(head.path)
            send_refusal(connection, error.refusal, request_id=request_id, dialect=near)
        except Exception:
            log.exception("request %s failed", request_id)
            self._desk.metrics.uncaught += 1
            connection.keep_alive = False
            near = dialect_near(head.path)
            send_refusal(connection, _INTERNAL, request_id=request_id, dialect=near)

    def _tell(
        self, telemetry: Telemetry, head: RequestHead, error: RefusedError, request_id: str
    ) -> None:
        """Tell of a call that was refused before it could wait for anything."""
        dialect, now_ns = self._desk.router.dialect_at(head.path), time.time_ns()
        served = error.model in self._desk.router.models()
        telemetry.refused(
            RefusedCall(
                trace=trace_of(head.headers),
                refusal=error.refusal,
                request_id=request_id,
                agent=error.agent.policy.id if error.agent else "",
                started_ns=now_ns,
                ended_ns=now_ns,
                endpoint=dialect.endpoint.value if dialect else "",
                model=error.model if served else "",
            )
        )

    def refuse_http(
        self,
        connection: ClientConnection,
        error: HttpError,
        *,
        path: bytes,
        head: RequestHead | None = None,
    ) -> None:
        """Answer what is no proper request; the connection is closed behind it.

        `head`: of a request whose body was being read.
        """
        if head is not None and error.status == 400:
            self._rest(head, BROKEN_BODY_NS)
        self._desk.metrics.http_errors[str(error.status)] += 1
        if error.status == 429:
            refusal = large_too_soon(retry_in_ns=error.retry_in_ns)
        else:
            code = "invalid_api_key" if error.status == 401 else "malformed_request"
            refusal = invalid(str(error).capitalize(), status=error.status, code=code)
        near = dialect_near(path)
        send_refusal(connection, refusal, request_id=clock.new_id(), dialect=near)

    def left_body(self, head: RequestHead, *, received_bytes: int) -> None:
        """Count what was received of a body in vain."""
        self._rest(head, received_bytes * RECEIVING_NS_PER_BYTE)

    def _rest(self, head: RequestHead, took_ns: int) -> None:
        """A body led to nothing. Those that may be large come from known agents: `check_head`."""
        view, now_ns = self._desk.view, clock.now_ns()
        if view is not None and (head.length is None or head.length >= LARGE_BODY):
            with suppress(RefusedError):  # its key has expired meanwhile
                agent = identify(view, head.headers, now_ms=clock.now_ms())
                agent.rates.refused_large(took_ns, now_ns=now_ns)

    # ------------------------------------------------------------------ calls

    def _call(
        self,
        connection: ClientConnection,
        head: RequestHead,
        body: Body,
        dialect: Dialect,
        request_id: str,
    ) -> None:
        desk = self._desk
        closed = desk.ready(now_ns=clock.now_ns())
        if closed is not None or desk.view is None:
            raise RefusedError(closed or _INTERNAL)
        judge = self._admit if len(body) < LARGE_BODY else self._admit_large
        self._begin(connection, judge(desk.view, dialect, head, body), request_id)

    def _admit(self, view: PolicyView, dialect: Dialect, head: RequestHead, body: Body) -> Call:
        router = self._desk.router
        return admit(view, router, dialect=dialect, head=head, body=body, now_ms=clock.now_ms())

    def _admit_large(
        self, view: PolicyView, dialect: Dialect, head: RequestHead, body: Body
    ) -> Call:
        """The same for a body that takes long: if it is refused, its agent's next ones wait.

        Those that were on their way meanwhile are not looked at.
        """
        agent, began_ns = identify(view, head.headers, now_ms=clock.now_ms()), clock.now_ns()
        if began_ns < agent.rates.large_after_ns:
            refusal = large_too_soon(retry_in_ns=agent.rates.large_after_ns - began_ns)
            raise RefusedError(refusal, agent=agent)
        receiving_ns = len(body) * RECEIVING_NS_PER_BYTE
        try:
            call = self._admit(view, dialect, head, body)
        except RefusedError:
            now_ns = clock.now_ns()
            took_ns = now_ns - began_ns + receiving_ns
            agent.rates.refused_large(took_ns, now_ns=now_ns)
            raise
        call.judging_ns = clock.now_ns() - began_ns + receiving_ns
        return call

    def _begin(self, connection: ClientConnection, call: Call, event_id: str) -> None:
        Placement(self._desk, connection, call, event_id=event_id).start()

    # ------------------------------------------------------------------ pages

    def _page(self, connection: ClientConnection, head: RequestHead, request_id: str) -> None:
        page = self._pages.get(head.path)
        if page is not None and head.method == b"GET":
            page(connection, head)
            return
        if page is None and self._desk.router.dialect_at(head.path) is None:
            refusal = invalid("This route does not exist here", status=404, code="unknown_route")
        else:
            refusal = invalid("This method is not allowed here", status=405, code="bad_method")
        near = dialect_near(head.path)
        send_refusal(connection, refusal, request_id=request_id, dialect=near)

    def _known_models(self, head: RequestHead) -> dict[str, list[Upstream]]:
        """The models by name, for a caller with a key."""
        desk = self._desk
        closed = desk.ready(now_ns=clock.now_ns())
        if closed is not None or desk.view is None:
            raise RefusedError(closed or _INTERNAL)
        identify(desk.view, head.headers, now_ms=clock.now_ms())
        return dict(sorted(desk.router.models().items()))

    def _models(self, connection: ClientConnection, head: RequestHead) -> None:
        models = self._known_models(head)
        if b"anthropic-version" in head.headers:
            connection.respond(200, bytes(_encode(anthropic.model_list(list(models)))))
            return
        listed = [
            {"id": model, "object": "model", "created": 0, "owned_by": nodes[0].engine.value}
            for model, nodes in models.items()
        ]
        connection.respond(200, bytes(_encode({"object": "list", "data": listed})))

    def _tags(self, connection: ClientConnection, head: RequestHead) -> None:
        tags = ollama.tag_list(list(self._known_models(head)))
        connection.respond(200, bytes(_encode(tags)))

    def _version(self, connection: ClientConnection, head: RequestHead) -> None:
        self._known_models(head)
        nodes = self._desk.router.upstreams
        found = [node.version for node in nodes if node.engine is Engine.OLLAMA and node.version]
        connection.respond(200, bytes(_encode({"version": min(found, default="0.0.0")})))

    def _show(self, connection: ClientConnection, head: RequestHead, body: Body) -> None:
        fields, _ = object_of(body)
        nodes = self._known_models(head).get(str(fields.get("model") or fields.get("name")))
        if not nodes:
            raise RefusedError(
                invalid("This model does not exist here", status=404, code="model_not_found")
            )
        page = ollama.model_page(nodes[0].context_window)
        connection.respond(200, bytes(_encode(page)))

    def _health(self, connection: ClientConnection, head: RequestHead) -> None:  # noqa: ARG002 -- a page
        connection.respond(200, bytes(_encode(self._state())))

    def _readiness(self, connection: ClientConnection, head: RequestHead) -> None:  # noqa: ARG002 -- a page
        state = self._state()
        connection.respond(200 if state["ready"] else 503, bytes(_encode(state)))

    def _state(self) -> dict[str, Any]:
        desk = self._desk
        closed = desk.ready(now_ns=clock.now_ns())
        return {
            "status": "ok" if closed is None else closed.reason,
            "ready": closed is None,
            "spool": desk.book.spool,
            "worker": desk.config.worker,
            "policy_revision": desk.book.policy_revision,
            "config_error": desk.config_error,
            "upstreams": [
                {
                    "name": upstream.name,
                    "healthy": upstream.healthy,
                    "available": upstream.available(clock.now_ns()),
                    "engine": upstream.engine.value,
                    "models": list(upstream.models),
                    "error": upstream.last_error,
                }
                for upstream in desk.router.upstreams
            ],
        }

    def _metrics(self, connection: ClientConnection, head: RequestHead) -> None:  # noqa: ARG002 -- a page
        connection.respond(200, self._desk.metrics.exposition(), content_type=_TEXT)


_INTERNAL = Refuse(
    status=500, type="server_error", code="internal_error", message="The sidecar failed"
)
