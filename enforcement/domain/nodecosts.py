"""Costs of serving nodes as people record them, and as the rules take them."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import find
from enforcement.errors import NodeCostError
from enforcement.models import NodeCost, ServingNode
from enforcement.rules.money import usd_text
from enforcement.rules.nodecost import (
    MOST_ACCELERATORS,
    MOST_PER_HOUR_NANOS,
    MOST_WATTS,
    Cost,
)

EARLIEST_BACK = timedelta(days=5 * 366)
LATEST_AHEAD = timedelta(days=366)


@transaction.atomic
def record_cost(
    *,
    organization_id: UUID,
    node_id: UUID,
    cost_per_hour_nanos: int,
    actor: Actor,
    now: datetime,
    valid_from: datetime | None = None,
    accelerator: str = "",
    accelerator_count: int = 0,
    watts: int | None = None,
    reason: str = "",
) -> NodeCost:
    """Say what a node costs by the hour from a time on; from now, if none is named.

    With the date of an earlier row it corrects that row, which stays.

    Raises:
        NodeCostError: a cost, count, power or date that cannot be true.
        NotFoundInOrganizationError: no such node here.
    """
    node = find(ServingNode, organization_id=organization_id, object_id=node_id, lock=True)
    cost = NodeCost(
        node=node,
        valid_from=valid_from or now,
        cost_per_hour_nanos=cost_per_hour_nanos,
        accelerator=accelerator,
        accelerator_count=accelerator_count,
        watts=watts,
        reason=reason,
        recorded_by=actor.label[:200] or actor.kind,
        recorded_at=now,
    )
    _check(cost, now)
    cost.save(force_insert=True)
    record(
        organization_id=organization_id,
        actor=actor,
        action="node.cost",
        object_kind="node",
        object_id=str(node.pk),
        reason=reason,
        after=_told(cost),
        now=now,
    )
    return cost


def costs_of(node_ids: Collection[UUID]) -> dict[UUID, list[Cost]]:
    """All that was recorded of these nodes. One query; nodes without a cost are left out."""
    found: dict[UUID, list[Cost]] = defaultdict(list)
    for row in NodeCost.objects.filter(node__in=node_ids).order_by("valid_from", "pk"):
        found[row.node_id].append(as_rule(row))
    return dict(found)


def as_rule(row: NodeCost) -> Cost:
    return Cost(
        valid_from=row.valid_from,
        order=row.pk,
        cost_per_hour_nanos=row.cost_per_hour_nanos,
        accelerator=row.accelerator,
        accelerator_count=row.accelerator_count,
        watts=row.watts,
    )


def _check(cost: NodeCost, now: datetime) -> None:
    """The same bounds that the database holds, in words."""
    if not 0 <= cost.cost_per_hour_nanos <= MOST_PER_HOUR_NANOS:
        raise NodeCostError(f"cost_per_hour is $0 to ${usd_text(MOST_PER_HOUR_NANOS)}")
    if bool(cost.accelerator) != (cost.accelerator_count > 0):
        raise NodeCostError("accelerator and accelerator_count are given together")
    if not 0 <= cost.accelerator_count <= MOST_ACCELERATORS:
        raise NodeCostError(f"accelerator_count is 0 to {MOST_ACCELERATORS}")
    if cost.watts is not None and not 1 <= cost.watts <= MOST_WATTS:
        raise NodeCostError(f"watts is 1 to {MOST_WATTS}, or left out")
    if not now - EARLIEST_BACK <= cost.valid_from <= now + LATEST_AHEAD:
        raise NodeCostError("valid_from is at most five years back and one year ahead")


def _told(cost: NodeCost) -> dict[str, str]:
    told = {
        "valid_from": cost.valid_from.isoformat(),
        "cost_per_hour": usd_text(cost.cost_per_hour_nanos),
        "accelerator": f"{cost.accelerator_count} x {cost.accelerator}" if cost.accelerator else "",
        "watts": "" if cost.watts is None else str(cost.watts),
    }
    return {name: value for name, value in told.items() if value}
