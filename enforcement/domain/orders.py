"""Orders: interventions that reach every sidecar, and the receipts that come back.

The agent's state changes in the same transaction, so a sidecar that missed the order still learns
of it with the next policy. Raising the policy's revision locks the organization's row until the
commit, so cursors come in the order of commits and none is skipped.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor
from controlplane.identity.domain import set_agent_state
from controlplane.identity.models import Agent
from enforcement.models import Order
from enforcement.rules.policy import OrderKind, ScopeKind


@transaction.atomic
def order_agent(
    *,
    organization_id: UUID,
    agent_id: UUID,
    kind: OrderKind,
    reason: str,
    actor: Actor,
    now: datetime,
) -> Order:
    """Kill, pause, throttle or resume an agent on every sidecar.

    Raises:
        NotFoundInOrganizationError, InvalidStateChangeError, ReasonRequiredError: see
            `set_agent_state`.
    """
    agent: Agent = set_agent_state(
        organization_id=organization_id,
        agent_id=agent_id,
        order=kind,
        reason=reason,
        actor=actor,
        now=now,
    )
    order = Order(
        organization_id=organization_id,
        kind=kind.value,
        scope_kind=ScopeKind.AGENT.value,
        scope_id=agent.pk,
        actor=actor.label,
        reason=reason,
        created_at=now,
    )
    order.save(force_insert=True)
    order.refresh_from_db(fields=["cursor"])
    return order
