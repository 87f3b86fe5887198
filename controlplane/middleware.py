"""One log line for each request, with an id that also stands in the response."""

import time
import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

from controlplane.metrics import count_request

log = structlog.get_logger("controlplane.request")
HEADER = "X-Request-Id"
NANOS_PER_SECOND = 1_000_000_000
QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestLogMiddleware:
    """Method, path, status and time; never a query, a body or a header (they may hold secrets)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = str(uuid.uuid4())
        began = time.perf_counter_ns()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = self._get_response(request)
            spent_ns = time.perf_counter_ns() - began
            count_request(request, response.status_code, spent_ns / NANOS_PER_SECOND)
            if request.path not in QUIET_PATHS:
                log.info(
                    "request",
                    method=request.method,
                    path=request.path,
                    status=response.status_code,
                    ms=spent_ns // 1_000_000,
                )
        response.headers[HEADER] = request_id
        return response
