"""Errors as problem documents (RFC 9457): the only file that knows both.

Each app registers its errors from `AppConfig.ready`; the type is a stable URN made of the name.
"""

import re
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:comptroller:problem:"

_registry: dict[type[Exception], int] = {}


def register(error: type[Exception], status: int) -> None:
    """Say which status a domain error has; subclasses inherit it."""
    _registry[error] = status


def handle(error: Exception, _context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. None: not ours, a plain 500 without detail."""
    status = _status_of(error)
    if status is not None:
        set_rollback()
        return problem(status, _type_of(error), str(error))
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if not isinstance(error, exceptions.APIException):
        return None
    set_rollback()
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    if getattr(error, "wait", None):
        headers["Retry-After"] = str(int(error.wait))  # type: ignore[attr-defined]
    if isinstance(error, exceptions.ValidationError):
        return problem(400, "invalid", "Some fields are not valid.", errors=error.detail)
    return problem(error.status_code, str(error.default_code), str(error.detail), headers=headers)


def problem(
    status: int,
    kind: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Response:
    """A problem document as a response."""
    body = {
        "type": TYPE_PREFIX + kind,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **extra,
    }
    return Response(body, status=status, headers=headers, content_type=CONTENT_TYPE)


def _status_of(error: Exception) -> int | None:
    for kind in type(error).__mro__:
        if kind in _registry:
            return _registry[kind]
    return None


def _type_of(error: Exception) -> str:
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
