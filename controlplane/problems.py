"""Errors as problem documents (RFC 9457): the only file that knows both.

Each app registers its errors from `AppConfig.ready`; a subclass inherits the status of its base.
The type is a URN made of the class's name, so a class is never renamed lightly.
"""

import re
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:comptroller:problem:"
API_PREFIX = "/api/"
DATABASE_BACK_S = "1"
log = structlog.get_logger("controlplane.problems")

_registry: dict[type[Exception], int] = {}


def register(error: type[Exception], status: int) -> None:
    """Say which status a domain error has; subclasses inherit it."""
    _registry[error] = status


def handle(error: Exception, _context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. None: not ours, a plain 500 without detail."""
    status = _status_of(error)
    if status is not None:
        set_rollback()
        return problem(status, kind_of(error), str(error), **_extras_of(error))
    if isinstance(error, OperationalError):
        return _database_away(error)
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if not isinstance(error, exceptions.APIException):
        return None
    set_rollback()
    headers = {}
    if header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = header
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    if isinstance(error, exceptions.ValidationError):
        return problem(400, "invalid", "Some fields are not valid.", errors=error.detail)
    kind = str(error.default_code).replace("_", "-")
    return problem(error.status_code, kind, str(error.detail), headers=headers)


def _database_away(error: OperationalError) -> Response:
    """Lost, locked for too long, or one of two that waited for each other: the next try is another.

    Whether the change was made is not known if the connection was lost at its commit.
    """
    set_rollback()
    log.error("the database did not answer", exc_info=error)
    words = "The database is away or busy. Try again; an Idempotency-Key lets it be done once."
    return problem(503, "database-away", words, headers={"Retry-After": DATABASE_BACK_S})


def problem(
    status: int,
    kind: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Response:
    """A problem document as a response."""
    content = problem_document(status, kind, detail) | extra
    return Response(content, status=status, headers=headers, content_type=CONTENT_TYPE)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler of requests that it does not read: too many fields, or no proper host."""
    if not request.path.startswith(API_PREFIX):
        return defaults.bad_request(request, exception)
    return _plain(400, "unreadable", "The request is malformed, or holds too much.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler of addresses that do not exist."""
    if not request.path.startswith(API_PREFIX):
        return defaults.page_not_found(request, exception)
    return _plain(404, "not-found", "Nothing is at this address.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler of our own mistakes: no detail leaves the server, the log has it."""
    if not request.path.startswith(API_PREFIX):
        return defaults.server_error(request)
    return _plain(500, "internal", "Something went wrong here. The log has the reason.")


def _plain(status: int, kind: str, detail: str) -> HttpResponse:
    content = problem_document(status, kind, detail)
    return JsonResponse(content, status=status, content_type=CONTENT_TYPE)


def problem_document(status: int, kind: str, detail: str) -> dict[str, Any]:
    """A problem document as plain data, for those who answer without DRF."""
    return {
        "type": TYPE_PREFIX + kind,
        "title": kind.replace("-", " ").capitalize(),
        "status": int(status),
        "detail": detail or HTTPStatus(status).phrase,
    }


def _extras_of(error: Exception) -> dict[str, Any]:
    """What an error says beside its message."""
    extras: dict[str, Any] = {}
    if (field := getattr(error, "field", None)) is not None:
        extras["errors"] = {field: [str(error)]}
    if (code := getattr(error, "code", None)) is not None:
        extras["code"] = code
    if (wait := getattr(error, "retry_after_s", None)) is not None:
        extras["headers"] = {"Retry-After": str(wait)}
    return extras


def _status_of(error: Exception) -> int | None:
    for kind in type(error).__mro__:
        if kind in _registry:
            return _registry[kind]
    return None


def kind_of(error: Exception) -> str:
    """The last part of an error's type: its class's name in kebab case."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
