"""What sidecars say of themselves: links, running sessions, how long each may be blind."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from controlplane.dashboard.formats import span
from controlplane.identity.models import Organization
from enforcement.models import Sidecar, Spool
from enforcement.queries import ONLINE
from enforcement.rules.wire import Health, SessionInfo

LATE = timedelta(seconds=60)
FORGOTTEN = timedelta(hours=1)  # a spool that long silent after a clean end is no longer shown
MIB = 2**20


@dataclass(frozen=True)
class SidecarRow:
    """A sidecar with the figures of its books."""

    id: UUID
    name: str
    link: str
    version: str
    revision: int
    is_behind: bool
    blind: str
    open_streams: int
    memory: str
    last_seen_at: datetime | None
    note: str
    refused: list[str]  # nodes that it named and does not speak for, each with the reason
    is_revoked: bool


@dataclass
class Links:
    """How many sidecars there are, and how many answer."""

    all: int = 0
    online: int = 0
    unreachable: int = 0
    by_link: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def link_of(last_seen_at: datetime | None, *, now: datetime) -> str:
    if last_seen_at is None:
        return "never"
    silent = now - last_seen_at
    if silent <= ONLINE:
        return "online"
    return "late" if silent <= LATE else "offline"


def link_counts(organization: Organization, *, now: datetime) -> Links:
    links = Links()
    sidecars = Sidecar.objects.filter(organization=organization, token__revoked_at=None)
    seen = sidecars.values_list("last_seen_at", flat=True)
    for last_seen_at in seen:
        link = link_of(last_seen_at, now=now)
        links.all += 1
        links.by_link[link] += 1
        links.online += link == "online"
        links.unreachable += link in ("late", "offline")
    return links


def live_spools(organization: Organization, *, now: datetime) -> list[Spool]:
    """Books that spoke lately, each with its sidecar."""
    spools = Spool.objects.filter(organization=organization, last_sync_at__gt=now - LATE)
    return list(spools.select_related("sidecar").order_by("sidecar__name", "book"))


def book_label(spool: Spool) -> str:
    """A book with its sidecar, whose name most books begin with anyway."""
    name, book = spool.sidecar.name, spool.book or "book"
    return book if book.startswith(name) else f"{name} · {book}"


def running_by_agent(sessions: Iterable[SessionInfo]) -> dict[UUID, int]:
    """How many requests each agent has in flight."""
    running: dict[UUID, int] = defaultdict(int)
    for session in sessions:
        running[UUID(session.agent)] += session.running
    return running


def sidecar_rows(organization: Organization, *, now: datetime) -> list[SidecarRow]:
    """Every sidecar, by name. Two queries."""
    books: dict[UUID, list[Spool]] = defaultdict(list)
    for spool in Spool.objects.filter(
        organization=organization, last_sync_at__gt=now - FORGOTTEN
    ).order_by("-last_sync_at"):
        books[spool.sidecar_id].append(spool)
    sidecars = Sidecar.objects.filter(organization=organization).select_related("token")
    return [
        _sidecar_row(sidecar, books[sidecar.id], organization, now)
        for sidecar in sidecars.order_by("name", "id")
    ]


def _sidecar_row(
    sidecar: Sidecar, books: list[Spool], organization: Organization, now: datetime
) -> SidecarRow:
    link = link_of(sidecar.last_seen_at, now=now)
    current = [book for book in books if now - book.last_sync_at <= LATE] or books[:1]
    health = [msgspec.convert(book.health or {}, Health) for book in current]
    revision = min((book.policy_revision for book in current), default=0)
    blind = max(
        (book.policy_valid_until for book in current if book.policy_valid_until), default=now
    )
    return SidecarRow(
        id=sidecar.id,
        name=sidecar.name,
        link=link,
        version=sidecar.version,
        revision=revision,
        is_behind=bool(current) and revision < organization.policy_revision,
        blind=span(blind - now) if blind > now else "",
        open_streams=sum(report.open_streams for report in health),
        memory=f"{sum(report.resident_bytes for report in health) // MIB} MiB" if health else "—",
        last_seen_at=sidecar.last_seen_at,
        note=", ".join(book.book for book in current) or "no book yet",
        refused=[f"{one['name']}: {one['why']}" for one in sidecar.refused_nodes],
        is_revoked=sidecar.token.revoked_at is not None,
    )
