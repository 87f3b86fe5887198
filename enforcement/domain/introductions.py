"""Serving nodes as sidecars name them when they say hello.

A sidecar is believed about the nodes that it speaks for, and about no others: see
`enforcement.rules.nodeclaim`. What it was not believed is kept with the sidecar, for people.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from budgets.domain.locks import name_nodes_alone
from controlplane.audit.domain import Actor, record
from controlplane.audit.enums import ActorKind
from controlplane.identity.domain import bump_policy
from enforcement.collectors.registry import BY_ENGINE
from enforcement.domain.nodes import check_address, same_place
from enforcement.enums import NodeState
from enforcement.errors import NodeAddressError
from enforcement.models import ServingNode, Sidecar
from enforcement.rules.nodeclaim import REFUSED, Claim, Known, judge
from enforcement.rules.wire import UpstreamInfo

# Where a sidecar has only said which engine it is.
ENGINE_METRICS = {name: BY_ENGINE[name].metrics_path for name in ("llama.cpp", "vllm", "ollama")}
_TOLD = ("base_url", "metrics_path", "engine", "provider", "state")


@transaction.atomic
def register_upstreams(
    *, sidecar: Sidecar, upstreams: Sequence[UpstreamInfo], version: str, now: datetime
) -> None:
    """Write down the serving nodes that a Hello names; new models need prices in the policy.

    A node that its sidecar names no more is gone, unless a person entered it: nobody reads its
    counters any longer.
    """
    name_nodes_alone(sidecar.organization_id)
    Sidecar.objects.filter(pk=sidecar.pk).update(version=version[:40], last_seen_at=now)
    new = _insert_missing(sidecar, upstreams, now)
    known = _locked(sidecar.organization_id)
    refused: list[dict[str, str]] = []
    changed = False
    for upstream in upstreams:
        node = known[upstream.name]
        claim = Claim.OWN if node.pk in new else _claim(node, sidecar, upstream)
        if claim in REFUSED:
            refused.append({"name": upstream.name, "why": REFUSED[claim]})
        elif claim is not Claim.SHARED:
            changed |= _describe(node, sidecar, upstream, now, is_new=node.pk in new)
    named = {upstream.name for upstream in upstreams}
    for node in known.values():
        if named and node.name not in named:
            _leave(node, sidecar, now)
    _keep_refused(sidecar, refused, now)
    if changed:
        bump_policy(sidecar.organization_id)


def _insert_missing(
    sidecar: Sidecar, upstreams: Sequence[UpstreamInfo], now: datetime
) -> set[UUID]:
    """Rows for names that nobody has."""
    names = {upstream.name for upstream in upstreams}
    nodes = ServingNode.objects.filter(organization_id=sidecar.organization_id, name__in=names)
    missing = names - set(nodes.values_list("name", flat=True))
    rows = [
        ServingNode(
            organization_id=sidecar.organization_id, sidecar=sidecar, name=name, created_at=now
        )
        for name in sorted(missing)
    ]
    ServingNode.objects.bulk_create(rows)
    return {row.pk for row in rows}


def _locked(organization_id: UUID) -> dict[str, ServingNode]:
    nodes = ServingNode.objects.select_for_update(of=("self",)).order_by("id")
    known = nodes.filter(organization_id=organization_id).select_related("sidecar__token")
    return {node.name: node for node in known}


def _claim(node: ServingNode, sidecar: Sidecar, upstream: UpstreamInfo) -> Claim:
    owner = node.sidecar
    known = Known(
        owner=str(owner.pk) if owner else "",
        owner_is_revoked=owner is not None and owner.token.revoked_at is not None,
        address=same_place(node.base_url),
        is_gone=node.state == NodeState.GONE,
        is_removed=node.removed_at is not None,
    )
    return judge(known, sidecar=str(sidecar.pk), address=same_place(upstream.base_url[:500]))


def _describe(
    node: ServingNode, sidecar: Sidecar, upstream: UpstreamInfo, now: datetime, *, is_new: bool
) -> bool:
    """Bring a node up to date; whether the policy has to know it."""
    before = {} if is_new else _told(node)
    models = sorted(upstream.models)
    changed = is_new or (bool(models) and models != node.models)
    node.sidecar = sidecar
    if not node.by_hand:  # else a person said where it is read: a sidecar may see it elsewhere
        node.base_url = upstream.base_url[:500]
        node.metrics_path = _metrics_path(upstream)
    node.engine = upstream.engine[:40]
    node.engine_version = upstream.engine_version[:100]
    node.provider = upstream.provider[:100]
    node.context_window = upstream.context_window
    if models:
        node.models = models
    if node.state == NodeState.GONE:
        node.state = NodeState.ACTIVE
    node.save()
    if _told(node) != before:
        _record(node, "node.enrol" if is_new else "node.change", sidecar, now, before)
    return changed


def _metrics_path(upstream: UpstreamInfo) -> str:
    """Where the node's counters are; empty where a worker should not be sent by a sidecar."""
    path = upstream.metrics_path or ENGINE_METRICS.get(upstream.engine, "")
    try:
        check_address(upstream.base_url)
    except NodeAddressError:
        return ""
    return path[:200] if path.startswith("/") else ""


def _leave(node: ServingNode, sidecar: Sidecar, now: datetime) -> None:
    if node.sidecar_id != sidecar.pk or node.by_hand or node.state == NodeState.GONE:
        return
    before = _told(node)
    node.state = NodeState.GONE
    node.save(update_fields=["state"])
    _record(node, "node.gone", sidecar, now, before)


def _keep_refused(sidecar: Sidecar, refused: list[dict[str, str]], now: datetime) -> None:
    """Tell people once, not at every hello."""
    rows = Sidecar.objects.filter(pk=sidecar.pk).exclude(refused_nodes=refused)
    if not rows.update(refused_nodes=refused):
        return
    sidecar.refused_nodes = refused
    for one in refused:
        record(
            organization_id=sidecar.organization_id,
            actor=_actor(sidecar),
            action="sidecar.node_refused",
            object_kind="sidecar",
            object_id=str(sidecar.pk),
            reason=one["why"],
            after={"node": one["name"]},
            now=now,
        )


def _told(node: ServingNode) -> dict[str, str]:
    told = {name: str(getattr(node, name)) for name in _TOLD}
    return told | {"sidecar": node.sidecar.name if node.sidecar else ""}


def _actor(sidecar: Sidecar) -> Actor:
    return Actor(ActorKind.SIDECAR, str(sidecar.pk), sidecar.name)


def _record(
    node: ServingNode,
    action: str,
    sidecar: Sidecar,
    now: datetime,
    before: dict[str, str],
) -> None:
    record(
        organization_id=node.organization_id,
        actor=_actor(sidecar),
        action=action,
        object_kind="node",
        object_id=str(node.pk),
        before=before or None,
        after={"name": node.name, **_told(node)},
        now=now,
    )
