"""Reads that API and pages share: what is out at each book, who has yet to acknowledge."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from django.db import connection
from django.db.models import F, Q, QuerySet, Sum

from budgets.enums import LIVE_LEASE_STATES
from budgets.models import Lease
from controlplane.identity.models import Organization
from enforcement.enums import NodeState
from enforcement.models import Order, ServingNode, Spool, StoppedSession
from enforcement.rules.policy import AgentState, SessionPolicy
from enforcement.rules.wire import SessionInfo

ONLINE = timedelta(seconds=10)  # since the last word of a book
EXPECTED_TO_ANSWER = timedelta(seconds=60)  # a book that was silent for longer is not waited for

# The organizations of which a spool has not told this incarnation its leases. One that was silent
# for a day before the others has no lease that it could tell of.
LEARNING = """
    SELECT DISTINCT s.organization_id::text
    FROM enforcement_spool s
    JOIN enforcement_sidecar c ON c.id = s.sidecar_id
    JOIN identity_apitoken t ON t.id = c.token_id AND t.revoked_at IS NULL
    JOIN budgets_ledgerincarnation i ON i.ended_at IS NULL
    WHERE s.organization_id = ANY(%s::uuid[]) AND s.incarnation <> i.id
        AND s.waived_for IS DISTINCT FROM i.id
        AND s.last_sync_at > (SELECT max(a.last_sync_at) FROM enforcement_spool a
            WHERE a.organization_id = s.organization_id) - interval '24 hours'
"""


@dataclass(frozen=True)
class Exposure:
    """What a book has of one budget: still leased, held by running requests, and in suspense."""

    budget: UUID
    budget_name: str
    unit: str
    leased: int
    open: int
    suspense: int


def is_learning(organization_id: UUID) -> bool:
    """Whether leases of an organization may be out that a failover forgot (L11)."""
    with connection.cursor() as cursor:
        cursor.execute(LEARNING, [[organization_id]])
        return cursor.fetchone() is not None


def exposures(spools: Collection[UUID]) -> dict[UUID, list[Exposure]]:
    """What each book can still spend, or may have spent, by budget. One query."""
    rows = (
        Lease.objects.filter(spool__in=list(spools), state__in=LIVE_LEASE_STATES)
        .values(
            "spool",
            "state",
            budget=F("balance__budget"),
            name=F("balance__budget__name"),
            unit=F("balance__budget__unit"),
        )
        .annotate(
            rest=Sum(F("amount") - F("used_amount") - F("returned_amount")),
            running=Sum("open_amount"),
        )
        .order_by("name", "budget")
    )
    totals: dict[tuple[UUID, UUID], list[int]] = defaultdict(lambda: [0, 0, 0])
    words: dict[UUID, tuple[str, str]] = {}
    for row in rows:
        words[row["budget"]] = (row["name"], row["unit"])
        total = totals[row["spool"], row["budget"]]
        if row["state"] == "suspended":
            total[2] += row["rest"]
        else:
            total[0] += row["rest"]
            total[1] += row["running"]
    found: dict[UUID, list[Exposure]] = defaultdict(list)
    for (spool, budget), amounts in totals.items():
        found[spool].append(Exposure(budget, *words[budget], *amounts))
    return found


def waiting_for(order: Order) -> QuerySet[Spool]:
    """Books that lived when the order was given and have not acknowledged it."""
    return (
        Spool.objects.filter(
            organization_id=order.organization_id,
            last_sync_at__gt=order.created_at - EXPECTED_TO_ANSWER,
        )
        .exclude(id__in=order.acknowledgements.values("spool"))
        .select_related("sidecar")
        .order_by("sidecar__name", "book")
    )


def node_names(organization_id: UUID) -> Iterable[str]:
    """The names of the organization's serving nodes."""
    return _nodes(organization_id).values_list("name", flat=True)


def node_providers(organization_id: UUID) -> Iterable[str]:
    return _nodes(organization_id).values_list("provider", flat=True)


def stopped_sessions(organization_id: UUID) -> list[SessionPolicy]:
    """Sessions that are paused or killed though their agents may call."""
    rows = StoppedSession.objects.filter(
        organization_id=organization_id, agent__retired_at__isnull=True
    ).order_by("agent_id", "session")
    return [
        SessionPolicy(str(row.agent_id), row.session, AgentState(row.state), row.drains)
        for row in rows
    ]


def served_models(organization_id: UUID) -> set[str]:
    """The models that the organization's nodes serve: the catalogue is far larger."""
    rows = _nodes(organization_id).values_list("models", flat=True)
    return {str(model) for models in rows for model in models}


def draining_nodes(organization_id: UUID) -> list[str]:
    """Nodes that take no new calls: people take them out of service, or have removed them."""
    out = Q(state=NodeState.DRAINING) | Q(removed_at__isnull=False)
    return list(_nodes(organization_id).filter(out).order_by("name").values_list("name", flat=True))


def _nodes(organization_id: UUID) -> QuerySet[ServingNode]:
    return ServingNode.objects.filter(organization_id=organization_id)


def running_sessions(organization: Organization, *, now: datetime) -> list[SessionInfo]:
    """Sessions with a request in flight, as the books that are online last told."""
    spools = Spool.objects.filter(organization=organization, last_sync_at__gt=now - ONLINE)
    return [session for spool in spools.order_by("id") for session in sessions_of(spool)]


def sessions_of(spool: Spool) -> list[SessionInfo]:
    return msgspec.convert(spool.sessions or [], list[SessionInfo])
