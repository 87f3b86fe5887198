"""The lease protocol over HTTP: a plain ASGI application below /sidecar/v1/.

Not Django's: a watch stream would keep a thread and a database connection for hours.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
import psycopg
from django.db import DataError as DjangoDataError
from django.db import OperationalError as DjangoOperationalError

from budgets.errors import (
    BudgetError,
    DelegationError,
    DelegationNotFoundError,
    NotFreeError,
    StillLearningError,
)
from controlplane.identity.errors import CredentialError
from controlplane.problems import kind_of, problem_document
from enforcement.errors import (
    BusyError,
    EnforcementError,
    GroupKeyReusedError,
    MessageError,
    SpoolOfAnotherError,
    UnsafeDatabaseError,
)
from enforcement.leasing import metrics
from enforcement.leasing.auth import SidecarIdentity
from enforcement.leasing.service import LeaseService
from enforcement.rules.wire import PROTOCOL, Delegate, EncodedUsage, EndDelegation, Hello, Sync

PREFIX = "/sidecar/v1/"
MAX_BODY_BYTES = 16 * 1024 * 1024
BEAT_S = 2.0
MESSAGES = frozenset({"hello", "sync", "usage", "watch", "delegate", "undelegate"})

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

T = TypeVar("T", Hello, Sync, EncodedUsage, Delegate, EndDelegation)

log = logging.getLogger(__name__)


class BodyTooLargeError(EnforcementError):
    """The body is larger than any message needs to be."""


STATUS: dict[type[Exception], int] = {
    CredentialError: 401,
    SpoolOfAnotherError: 403,
    BodyTooLargeError: 413,
    GroupKeyReusedError: 422,
    MessageError: 422,
    NotFreeError: 409,
    DelegationError: 422,
    DelegationNotFoundError: 404,
    psycopg.DataError: 422,
    DjangoDataError: 422,
    BusyError: 503,
    UnsafeDatabaseError: 503,
    StillLearningError: 503,
    psycopg.OperationalError: 503,
    DjangoOperationalError: 503,
}


class _Client(Exception):  # noqa: N818 -- not an error: the client went away
    """The client closed the connection while it sent its body."""


class LeaseApplication:
    """Owns the lease service of the process, from startup to shutdown."""

    def __init__(self, make_service: Callable[[], LeaseService] = LeaseService) -> None:
        self._make_service = make_service
        self._service: LeaseService | None = None
        self._starting = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.service()
                except Exception as error:  # noqa: BLE001 -- the server prints it and exits
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._service is not None:
                    await self._service.stop()
                    self._service = None
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def service(self) -> LeaseService:
        """The running service; started here when the server has no lifespan."""
        async with self._starting:
            if self._service is None:
                service = self._make_service()
                try:
                    await service.start()
                except BaseException:
                    await service.stop()
                    raise
                self._service = service
        return self._service

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            service = await self.service()
            identity = await service.authenticator.authenticate(_header(scope, b"authorization"))
            route = (scope["method"], scope["path"].removeprefix(PREFIX))
            if route == ("GET", "watch"):
                await _watch(service, identity, scope, receive, send)
                return
            answer = await _answer(service, identity, route, receive)
        except _Client:
            return
        except Exception as error:  # noqa: BLE001 -- every failure has an answer
            metrics.MESSAGES.labels(_kind(scope), await _problem(send, error)).inc()
            return
        metrics.MESSAGES.labels(_kind(scope), 200 if answer else 404).inc()
        if answer is None:
            body = problem_document(404, "not-found", "Nothing is at this address.")
            await _respond(send, 404, body)
        else:
            await _respond(send, 200, answer)


application = LeaseApplication()


async def _answer(
    service: LeaseService, identity: SidecarIdentity, route: tuple[str, str], receive: Receive
) -> msgspec.Struct | None:
    if route == ("POST", "sync"):
        return await service.sync(identity, await _read(receive, Sync))
    if route == ("POST", "usage"):
        return await service.usage(identity, await _read(receive, EncodedUsage))
    if route == ("POST", "delegate"):
        return await service.delegate(identity, await _read(receive, Delegate))
    if route == ("POST", "undelegate"):
        return await service.end_delegation(identity, await _read(receive, EndDelegation))
    if route == ("POST", "hello"):
        return await service.hello(identity, await _read(receive, Hello))
    return None


async def _read(receive: Receive, kind: type[T]) -> T:
    """Raises BodyTooLargeError, MessageError."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Client
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise BodyTooLargeError(f"at most {MAX_BODY_BYTES} bytes")
        parts.append(part)
        if not message.get("more_body"):
            break
    try:
        read = msgspec.json.decode(b"".join(parts), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(str(error)) from error
    if read.header.protocol != PROTOCOL:
        raise MessageError(f"protocol {read.header.protocol}: this server speaks {PROTOCOL}")
    return read


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return cast("bytes", value).decode("latin-1")
    return ""


async def _watch(
    service: LeaseService, identity: SidecarIdentity, scope: Scope, receive: Receive, send: Send
) -> None:
    """Hints as server-sent events, a beat every two seconds, no database connection."""
    query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
    watcher = service.hints.watch(identity.organization, query.get("spool", ""))
    gone = asyncio.ensure_future(_until_gone(receive))
    stopping = asyncio.ensure_future(service.stopping.wait())
    try:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        watcher.event.set()  # whatever happened before this stream is worth a Sync
        while not gone.done() and not stopping.done():
            hinted = asyncio.ensure_future(watcher.event.wait())
            await asyncio.wait(
                {hinted, gone, stopping}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED
            )
            hinted.cancel()
            body = b": beat\n\n"
            if watcher.event.is_set():
                watcher.event.clear()
                body = b"event: hint\ndata: {}\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        service.hints.unwatch(watcher)
        gone.cancel()
        stopping.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _kind(scope: Scope) -> str:
    """The message that an address stands for; addresses of others share one name."""
    name = str(scope["path"]).removeprefix(PREFIX)
    return name if name in MESSAGES else "unknown"


async def _problem(send: Send, error: Exception) -> int:
    """A problem document (RFC 9457); what is unexpected is logged and told without detail.

    Returns its status.
    """
    kind = next((kind for kind in type(error).__mro__ if kind in STATUS), None)
    status = STATUS[kind] if kind else 500
    detail = str(error)
    if status == 500:
        log.error("a message of a sidecar failed", exc_info=error)
        detail = "the control plane failed; see its log"
    elif kind is not None and kind.__module__.startswith(("psycopg", "django")):
        log.warning("a message of a sidecar was not taken: %s", error)
        detail = "no database answers" if status == 503 else "a value that cannot be stored"
    await _respond(send, status, problem_document(status, _name(error, status), detail))
    return status


def _name(error: Exception, status: int) -> str:
    if isinstance(error, (EnforcementError, CredentialError, BudgetError)):
        return kind_of(error)
    return {422: "message", 503: "busy"}.get(status, "internal")


async def _respond(send: Send, status: int, content: Any) -> None:
    body = msgspec.json.encode(content)
    kind = b"application/json" if status == 200 else b"application/problem+json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if status in (401, 503):
        name = b"www-authenticate" if status == 401 else b"retry-after"
        headers.append((name, b"Bearer" if status == 401 else b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
