"""Serving nodes that a person enters, and what a person says of one."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from django.db import IntegrityError, transaction

from budgets.domain.locks import name_nodes_alone
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy, find
from enforcement.enums import NodeState
from enforcement.errors import (
    NodeAddressError,
    NodeLabelError,
    NodeNameTakenError,
    NodePatienceError,
    NodeStateError,
)
from enforcement.models import MOST_PATIENCE_S, ServingNode
from enforcement.rules.addresses import canonical, refusal_of_name

MOST_LABELS = 32
LONGEST_LABEL = 200
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")

# From which state to which. A node that its sidecar names no more is gone and can be removed.
TRANSITIONS = {
    (NodeState.ACTIVE, NodeState.DRAINING),
    (NodeState.DRAINING, NodeState.ACTIVE),
    (NodeState.ACTIVE, NodeState.GONE),
    (NodeState.DRAINING, NodeState.GONE),
    (NodeState.GONE, NodeState.ACTIVE),
}


@transaction.atomic
def create_node(
    *,
    organization_id: UUID,
    name: str,
    base_url: str,
    actor: Actor,
    now: datetime,
    engine: str = "unknown",
    metrics_path: str = "/metrics",
    labels: dict[str, str] | None = None,
) -> ServingNode:
    """Enter a node whose counters are to be watched, also where no sidecar stands beside it.

    Raises:
        NodeAddressError: an address that could not be read, or should not be.
        NodeLabelError: a label that is none.
        NodeNameTakenError: the organization has a node of this name, or at this address.
    """
    check_address(base_url)
    name_nodes_alone(organization_id)
    _check_is_new(organization_id, name, base_url, metrics_path)
    return insert_node(
        organization_id=organization_id,
        name=name,
        base_url=base_url,
        actor=actor,
        now=now,
        engine=engine,
        metrics_path=metrics_path,
        labels=labels or {},
    )


def insert_node(
    *,
    organization_id: UUID,
    name: str,
    base_url: str,
    actor: Actor,
    now: datetime,
    engine: str,
    metrics_path: str,
    labels: dict[str, str],
) -> ServingNode:
    """The same for callers that name nodes alone, and know that nobody else is read there."""
    check_address(base_url)
    check_labels(labels)
    if metrics_path and not metrics_path.startswith("/"):
        raise NodeAddressError("metrics_path begins with a slash, or is empty")
    try:
        with transaction.atomic():
            node = ServingNode.objects.create(
                organization_id=organization_id,
                name=name,
                base_url=base_url.rstrip("/"),
                engine=engine,
                metrics_path=metrics_path,
                labels=labels,
                by_hand=True,
                created_at=now,
            )
    except IntegrityError as error:
        raise NodeNameTakenError(f"a node named {name!r} exists") from error
    _record(node, "node.create", actor, now, before=None)
    bump_policy(organization_id)
    return node


@transaction.atomic
def set_node_state(
    *,
    organization_id: UUID,
    node_id: UUID,
    state: NodeState,
    reason: str,
    actor: Actor,
    now: datetime,
) -> ServingNode:
    """Take a node out of service, back into it, or remove it.

    Sidecars give it no new call unless it is active; what runs on it goes on. One that was removed
    is not read any more either, and no sidecar brings it back by naming it.

    Raises:
        NodeStateError: it is in this state already.
        NotFoundInOrganizationError: no such node here.
    """
    node = find(ServingNode, organization_id=organization_id, object_id=node_id, lock=True)
    before = NodeState(node.state)
    is_removal = state == NodeState.GONE and node.removed_at is None
    if (before, state) not in TRANSITIONS and not (before == state and is_removal):
        raise NodeStateError(f"the node is {before} already")
    node.state = state
    node.removed_at = now if state == NodeState.GONE else None
    node.save(update_fields=["state", "removed_at"])
    _record(node, f"node.{state}", actor, now, before={"state": before.value}, reason=reason)
    bump_policy(organization_id)
    return node


@transaction.atomic
def set_labels(
    *,
    organization_id: UUID,
    node_id: UUID,
    labels: Mapping[str, str],
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> ServingNode:
    """Give a node these labels in place of those that it has. They are words for people.

    Raises:
        NodeLabelError: a label that is none.
        NotFoundInOrganizationError: no such node here.
    """
    check_labels(labels)
    node = find(ServingNode, organization_id=organization_id, object_id=node_id, lock=True)
    before = {"labels": _in_order(node.labels)}
    node.labels = dict(labels)
    node.save(update_fields=["labels"])
    after = {"labels": _in_order(node.labels)}
    _record(node, "node.label", actor, now, before=before, after=after, reason=reason)
    return node


@transaction.atomic
def set_patience(
    *,
    organization_id: UUID,
    node_id: UUID,
    patience_s: int,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> ServingNode:
    """Say for how long a node may be silent before that is a failure: nodes at the edge are often
    away. 0: at once.

    Raises:
        NodePatienceError: negative, or more than a month.
        NotFoundInOrganizationError: no such node here.
    """
    if not 0 <= patience_s <= MOST_PATIENCE_S:
        raise NodePatienceError(f"patience_s is 0 to {MOST_PATIENCE_S}")
    node = find(ServingNode, organization_id=organization_id, object_id=node_id, lock=True)
    before, after = {"patience_s": str(node.patience_s)}, {"patience_s": str(patience_s)}
    node.patience_s = patience_s
    node.save(update_fields=["patience_s"])
    _record(node, "node.change", actor, now, before=before, after=after, reason=reason)
    return node


def health_of(node: ServingNode, *, now: datetime) -> str:
    """What people said of it, else whether it can be read: `active`, `draining`, `gone`,
    `unscraped`, `away` within its patience, `failing` beyond it.
    """
    if node.state != NodeState.ACTIVE:
        return str(node.state)
    if node.last_error:
        silent = now - (node.last_scraped_at or node.created_at)
        return "away" if silent <= timedelta(seconds=node.patience_s) else "failing"
    return "active" if node.last_scraped_at else "unscraped"


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises NodeLabelError: too many, a name that is none, a value that is no line of text."""
    if len(labels) > MOST_LABELS:
        raise NodeLabelError(f"a node has at most {MOST_LABELS} labels")
    for name, value in labels.items():
        if not _LABEL_NAME.fullmatch(name):
            raise NodeLabelError("a label's name is 1 to 63 of letters, digits, '.', '_', '/', '-'")
        if len(value) > LONGEST_LABEL or not value.isprintable():
            told = f"the label {name} is at most {LONGEST_LABEL} printable characters"
            raise NodeLabelError(told)


def _check_is_new(organization_id: UUID, name: str, base_url: str, metrics_path: str) -> None:
    """A page under two names would be counted twice. Raises NodeNameTakenError."""
    nodes = ServingNode.objects.filter(organization_id=organization_id, metrics_path=metrics_path)
    place = canonical(base_url)
    read = nodes.exclude(metrics_path="").exclude(state=NodeState.GONE)
    for node in read.exclude(name=name).order_by("name"):
        if same_place(node.base_url) == place:
            raise NodeNameTakenError(f"the node {node.name!r} is read at this address")


def same_place(base_url: str) -> str:
    """What two spellings of one address have in common. Sidecars may have told anything."""
    try:
        return canonical(base_url)
    except ValueError:
        return base_url


def _in_order(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={labels[name]}" for name in sorted(labels))


def check_address(base_url: str) -> None:
    """Raises NodeAddressError unless a worker may read from there."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise NodeAddressError("base_url is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise NodeAddressError("base_url begins with http:// or https:// and names a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise NodeAddressError("base_url has neither user, nor query, nor fragment")
    refused = refusal_of_name(host)
    if refused:
        raise NodeAddressError(refused)


def _record(
    node: ServingNode,
    action: str,
    actor: Actor,
    now: datetime,
    *,
    before: dict[str, str] | None,
    after: dict[str, str] | None = None,
    reason: str = "",
) -> None:
    record(
        organization_id=node.organization_id,
        actor=actor,
        action=action,
        object_kind="node",
        object_id=str(node.pk),
        reason=reason,
        before=before,
        after=after or {"name": node.name, "base_url": node.base_url, "state": str(node.state)},
        now=now,
    )
