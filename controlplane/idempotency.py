"""Requests that may be sent again: the same `Idempotency-Key` gets the same answer (L10).

The answer is stored in the transaction of the change; a second request that comes meanwhile
waits for it. Secrets are never stored: a repeated answer has null in their place.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api import caller_of
from controlplane.identity.errors import IdempotencyConflictError
from controlplane.identity.models import IdempotentAnswer

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT_FOR = timedelta(hours=24)
SECRET_FIELDS = frozenset({"secret", "sign_in_url"})
_KEY = re.compile(r"[!-~]{1,255}")

V = TypeVar("V")
P = ParamSpec("P")
Action = Callable[Concatenate[V, Request, P], Response]


def idempotent(action: Action[V, P]) -> Action[V, P]:
    """For view methods that create something."""

    @extend_schema(
        parameters=[
            OpenApiParameter(
                HEADER,
                str,
                OpenApiParameter.HEADER,
                description="The same key with the same content gets the same answer for a day.",
            )
        ]
    )
    @functools.wraps(action)
    def once(view: V, request: Request, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return action(view, request, *args, **kwargs)
        if not _KEY.fullmatch(key):
            raise exceptions.ValidationError({HEADER: ["1 to 255 visible ASCII characters"]})
        with transaction.atomic():
            row, is_new = _claim(request, key)
            if not is_new:
                return _repeat(row, _fingerprint(request))
            response = action(view, request, *args, **kwargs)
            row.status, row.body = response.status_code, _storable(response.data)
            row.save(update_fields=["status", "body"])
            return response

    return once


def _claim(request: Request, key: str) -> tuple[IdempotentAnswer, bool]:
    """The row of this key; who inserts it acts, whoever finds it waits for the other's commit."""
    caller, now = caller_of(request), timezone.now()
    IdempotentAnswer.objects.filter(created_at__lt=now - KEPT_FOR).delete()
    return IdempotentAnswer.objects.get_or_create(
        organization_id=caller.organization_id,
        caller=f"{caller.actor.kind}:{caller.actor.id}",
        key=key,
        defaults={"fingerprint": _fingerprint(request), "created_at": now},
    )


def _repeat(row: IdempotentAnswer, fingerprint: str) -> Response:
    if row.fingerprint != fingerprint:
        raise IdempotencyConflictError(f"the key {row.key!r} was used for another request")
    return Response(row.body, status=row.status, headers={REPLAYED: "true"})


def _fingerprint(request: Request) -> str:
    content = json.dumps(request.data, sort_keys=True, default=str)
    text = f"{request.method} {request.path} {content}"
    return hashlib.sha256(text.encode()).hexdigest()


def _storable(data: Any) -> Any:
    plain = json.loads(JSONRenderer().render(data) or b"null")
    if isinstance(plain, dict):
        return {name: None if name in SECRET_FIELDS else value for name, value in plain.items()}
    return plain
