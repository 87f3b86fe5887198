"""Signals for open pages: "something changed", never what. Pages then fetch their fragments.

1. Each tab holds one stream and no database connection. One connection for each process reads, once
   a second, a marker of every organization that somebody is watching.
2. A marker is made of the newest ids and revisions, each found by an index: it costs the same for
   a small and a large organization.
3. A signal may come too often or be lost with its connection; the next marker differs all the same.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.db import close_old_connections, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from controlplane.dashboard.web import admit

POLL_S = 1.0
BEAT_S = 15.0  # a comment now and then, so that proxies keep the stream and we notice who left
STREAMS_MAX = 500

_MARKER = """
SELECT concat_ws('/',
    (SELECT policy_revision FROM identity_organization WHERE id = %(id)s),
    (SELECT id FROM budgets_transfer WHERE organization_id = %(id)s ORDER BY id DESC LIMIT 1),
    (SELECT id FROM budgets_usageevent WHERE organization_id = %(id)s
        ORDER BY started_at DESC LIMIT 1),
    (SELECT id FROM budgets_refusal WHERE organization_id = %(id)s ORDER BY at DESC LIMIT 1),
    (SELECT max(a.at) FROM enforcement_orderacknowledgement a
        JOIN enforcement_order o ON o.id = a.order_id WHERE o.organization_id = %(id)s),
    (SELECT md5(string_agg(sessions::text, '|' ORDER BY id)) FROM enforcement_spool
        WHERE organization_id = %(id)s),
    (SELECT max(last_scraped_at) FROM enforcement_servingnode WHERE organization_id = %(id)s)
)
"""


class Watch:
    """What the streams of one organization wait on."""

    def __init__(self) -> None:
        self.streams = 0
        self.version = 0
        self.marker: str | None = None
        self._changed = asyncio.Event()

    def see(self, marker: str) -> None:
        """Wake the streams if the marker is another one than before."""
        known, self.marker = self.marker, marker
        if known is not None and known != marker:
            self.version += 1
            self._changed.set()
            self._changed = asyncio.Event()

    async def after(self, version: int) -> int:
        """The version, as soon as it is another one than `version`."""
        while self.version == version:
            await self._changed.wait()
        return self.version


class Hub:
    """All streams of this process, and the one task that reads markers for them."""

    def __init__(self) -> None:
        self._watches: dict[UUID, Watch] = {}
        self._reader: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        return sum(watch.streams for watch in self._watches.values())

    def join(self, organization_id: UUID) -> Watch:
        watch = self._watches.setdefault(organization_id, Watch())
        watch.streams += 1
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="live-markers")
        return watch

    def leave(self, organization_id: UUID) -> None:
        watch = self._watches[organization_id]
        watch.streams -= 1
        if watch.streams == 0:
            del self._watches[organization_id]
        if not self._watches and self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def _read(self) -> None:
        """Read markers until nobody watches; a lost database is asked again, later."""
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(**_parameters(), autocommit=True)
                try:
                    while True:
                        await self._read_once(connection)
                        await asyncio.sleep(POLL_S)
                finally:  # closing waits for nothing, so that a second cancellation cannot stop it
                    await connection.close()
            except psycopg.Error:
                await asyncio.sleep(POLL_S)

    async def _read_once(self, connection: psycopg.AsyncConnection[Any]) -> None:
        for organization_id, watch in list(self._watches.items()):
            cursor = await connection.execute(_MARKER, {"id": organization_id})
            row = await cursor.fetchone()
            watch.see(str(row[0]) if row else "")


def _parameters() -> dict[str, Any]:
    """How Django reaches the database, for a connection of our own."""
    known = connections["default"].settings_dict
    names = {"dbname": "NAME", "host": "HOST", "port": "PORT", "user": "USER"}
    found = {name: known.get(key) for name, key in names.items()}
    found["password"] = known.get("PASSWORD")
    return {name: value for name, value in found.items() if value}


hub = Hub()


async def live(request: HttpRequest) -> HttpResponseBase:
    """The stream of a tab. `event: changed` means: fetch your fragments again."""
    organization_id = await sync_to_async(_organization)(request)
    if organization_id is None:
        return HttpResponse(status=401)
    if hub.streams >= STREAMS_MAX:
        return HttpResponse(status=503, headers={"Retry-After": "30"})
    return StreamingHttpResponse(
        signals(organization_id),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _organization(request: HttpRequest) -> UUID | None:
    """Whose page it is. The database connection is given back: the stream may last for hours."""
    try:
        asked = admit(request)
    except PermissionDenied:
        return None
    organization_id = asked.organization.id if asked else None
    close_old_connections()
    return organization_id


async def signals(organization_id: UUID) -> AsyncIterator[bytes]:
    """Server-sent events for as long as the tab is there."""
    watch = hub.join(organization_id)
    try:
        seen = watch.version
        yield b"retry: 2000\n\n"
        yield _changed(seen)  # whatever happened while the page was on its way
        while True:
            try:
                seen = await asyncio.wait_for(watch.after(seen), BEAT_S)
            except TimeoutError:
                yield b": beat\n\n"
            else:
                yield _changed(seen)
    finally:
        hub.leave(organization_id)


def _changed(version: int) -> bytes:
    return f"event: changed\nid: {version}\ndata: changed\n\n".encode()
