"""Sidecars and what they bring: tokens, spools, serving nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy, find, issue_api_token, revoke_api_token
from controlplane.identity.enums import TokenKind
from enforcement.domain.nodes import check_address
from enforcement.enums import NodeState
from enforcement.errors import NodeAddressError, SidecarNameTakenError
from enforcement.models import ServingNode, Sidecar
from enforcement.rules.wire import UpstreamInfo

ENGINE_METRICS = {"llama.cpp": "/metrics", "vllm": "/metrics"}


@dataclass(frozen=True)
class EnrolledSidecar:
    """A new sidecar. `secret` is its token: shown once and stored nowhere."""

    sidecar: Sidecar
    secret: str


@transaction.atomic
def enrol_sidecar(
    *, organization_id: UUID, name: str, actor: Actor, now: datetime
) -> EnrolledSidecar:
    """Raises SidecarNameTakenError."""
    issued = issue_api_token(
        organization_id=organization_id,
        name=f"sidecar {name}",
        kind=TokenKind.SIDECAR,
        actor=actor,
        now=now,
    )
    try:
        with transaction.atomic():
            sidecar = Sidecar.objects.create(
                organization_id=organization_id, name=name, token=issued.token, created_at=now
            )
    except IntegrityError as error:
        raise SidecarNameTakenError(f"a sidecar named {name!r} exists") from error
    _record(sidecar, "sidecar.enrol", actor, now)
    return EnrolledSidecar(sidecar, issued.secret)


@transaction.atomic
def revoke_sidecar(
    *, organization_id: UUID, sidecar_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> Sidecar:
    """Take a sidecar's token away: it can neither spend nor report from then on."""
    sidecar = find(Sidecar, organization_id=organization_id, object_id=sidecar_id)
    revoke_api_token(
        organization_id=organization_id,
        token_id=sidecar.token_id,
        reason=reason,
        actor=actor,
        now=now,
    )
    _record(sidecar, "sidecar.revoke", actor, now, reason=reason)
    return sidecar


@transaction.atomic
def register_upstreams(
    *, sidecar: Sidecar, upstreams: Sequence[UpstreamInfo], version: str, now: datetime
) -> None:
    """Write down the serving nodes that a Hello names; new models need prices in the policy.

    A node that its sidecar names no more is gone: nobody reads its counters any longer.
    """
    Sidecar.objects.filter(pk=sidecar.pk).update(version=version[:40], last_seen_at=now)
    known = {
        node.name: node
        for node in ServingNode.objects.select_for_update()
        .filter(organization_id=sidecar.organization_id)
        .order_by("id")
    }
    changed = False
    for upstream in upstreams:
        node = known.get(upstream.name)
        if node is None:
            node = ServingNode(
                organization_id=sidecar.organization_id, name=upstream.name[:100], created_at=now
            )
        changed |= _describe(node, sidecar, upstream)
    named = {upstream.name for upstream in upstreams}
    for node in known.values():
        if node.sidecar_id == sidecar.pk and named and node.name not in named:
            node.state = NodeState.GONE
            node.save(update_fields=["state"])
    if changed:
        bump_policy(sidecar.organization_id)


def _describe(node: ServingNode, sidecar: Sidecar, upstream: UpstreamInfo) -> bool:
    """Bring a node up to date; whether it serves other models than before."""
    models = sorted(upstream.models)
    changed = node._state.adding or (bool(models) and models != node.models)  # noqa: SLF001
    node.sidecar = sidecar
    node.base_url = upstream.base_url[:500]
    node.engine = upstream.engine[:40]
    node.engine_version = upstream.engine_version[:100]
    node.provider = upstream.provider[:100]
    node.context_window = upstream.context_window
    node.metrics_path = _metrics_path(upstream)
    if models:
        node.models = models
    if node.state == NodeState.GONE:
        node.state = NodeState.ACTIVE
    node.save()
    return changed


def _metrics_path(upstream: UpstreamInfo) -> str:
    """Where the node's counters are; empty where a worker should not be sent by a sidecar."""
    path = upstream.metrics_path or ENGINE_METRICS.get(upstream.engine, "")
    try:
        check_address(upstream.base_url)
    except NodeAddressError:
        return ""
    return path[:200] if path.startswith("/") else ""


def _record(
    sidecar: Sidecar, action: str, actor: Actor, now: datetime, *, reason: str = ""
) -> None:
    record(
        organization_id=sidecar.organization_id,
        actor=actor,
        action=action,
        object_kind="sidecar",
        object_id=str(sidecar.pk),
        reason=reason,
        after={"name": sidecar.name},
        now=now,
    )
