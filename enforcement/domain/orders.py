"""Orders: interventions that reach every sidecar, and the receipts that come back.

The agent's state changes in the same transaction, so a sidecar that missed the order still learns
of it with the next policy. Raising the policy's revision locks the organization's row until the
commit, so cursors come in the order of commits and none is skipped.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy, set_agent_state
from controlplane.identity.domain.agents import refuse_retired
from controlplane.identity.domain.organizations import find
from controlplane.identity.errors import InvalidStateChangeError, ReasonRequiredError
from controlplane.identity.models import Agent
from enforcement.models import Order, StoppedSession
from enforcement.rules.policy import AgentState, OrderKind, ScopeKind

STOPPING = {OrderKind.KILL: AgentState.KILLED, OrderKind.PAUSE: AgentState.PAUSED}
MAX_STOPPED_SESSIONS = 1_000  # of an organization: they stand in every policy


@transaction.atomic
def order_agent(
    *,
    organization_id: UUID,
    agent_id: UUID,
    kind: OrderKind,
    reason: str,
    actor: Actor,
    now: datetime,
    drain: bool = False,
) -> Order:
    """Kill, pause, throttle or resume an agent on every sidecar.

    With `drain` a kill or a pause lets what runs end within its hold.

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
        drain=drain and kind in STOPPING,
    )
    return _sent(
        Order(
            organization_id=organization_id,
            kind=kind.value,
            scope_kind=ScopeKind.AGENT.value,
            scope_id=agent.pk,
            drain=agent.state_drains,
            actor=actor.label,
            reason=reason,
            created_at=now,
        )
    )


@transaction.atomic
def order_session(
    *,
    organization_id: UUID,
    agent_id: UUID,
    session: str,
    kind: OrderKind,
    reason: str,
    actor: Actor,
    now: datetime,
    drain: bool = False,
) -> Order:
    """Kill, pause or resume one session of an agent on every sidecar.

    A stopped session stays so until it is resumed; beyond `MAX_STOPPED_SESSIONS` of an
    organization the oldest ones are forgotten.

    Raises:
        NotFoundInOrganizationError, AgentRetiredError: there is no such agent.
        InvalidStateChangeError: a session is not throttled; only a stopped one is resumed.
        ReasonRequiredError: the reason is empty.
    """
    if not reason.strip():
        raise ReasonRequiredError(f"say why: a reason is needed to {kind.value} a session")
    agent = find(Agent, organization_id=organization_id, object_id=agent_id, lock=True)
    refuse_retired(agent)
    state = STOPPING.get(kind)
    rows = StoppedSession.objects.filter(agent=agent, session=session)
    if state is None and (kind is not OrderKind.RESUME or not rows.delete()[0]):
        raise InvalidStateChangeError(f"session {session!r} cannot be given the order to {kind}")
    if state is not None:
        kept = {"state": state.value, "drains": drain, "reason": reason[:500], "at": now}
        rows.update_or_create(
            agent=agent,
            session=session,
            defaults=kept,
            create_defaults={**kept, "organization_id": organization_id},
        )
        _forget_oldest(organization_id)
    record(
        organization_id=organization_id,
        actor=actor,
        action=f"session.{kind.value}",
        object_kind="agent",
        object_id=agent.pk,
        reason=reason,
        after={"session": session, "drain": drain},
        now=now,
    )
    bump_policy(organization_id)
    return _sent(
        Order(
            organization_id=organization_id,
            kind=kind.value,
            scope_kind=ScopeKind.SESSION.value,
            scope_id=agent.pk,
            scope_session=session,
            drain=drain and state is not None,
            actor=actor.label,
            reason=reason,
            created_at=now,
        )
    )


def _forget_oldest(organization_id: UUID) -> None:
    rows = StoppedSession.objects.filter(organization_id=organization_id).order_by("-at", "-pk")
    StoppedSession.objects.filter(
        pk__in=list(rows.values_list("pk", flat=True)[MAX_STOPPED_SESSIONS:])
    ).delete()


def _sent(order: Order) -> Order:
    order.save(force_insert=True)
    order.refresh_from_db(fields=["cursor"])
    return order
