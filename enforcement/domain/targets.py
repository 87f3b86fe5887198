"""Two nodes that are one process: counted twice, it would look like twice the traffic.

The node that was entered first is read. The other is told so, by its address before it is read, and
by who answered and which life of it after.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from enforcement.domain.nodes import same_place
from enforcement.enums import NodeState
from enforcement.models import ServingNode

_NEEDED = ("name", "organization_id", "created_at", "base_url", "metrics_path", "process")

Age = tuple[datetime, UUID]


def same_address(nodes: list[ServingNode]) -> dict[UUID, str]:
    """Which of these nodes have the address of an older one of their organization, in words."""
    others = _others(nodes, Q())
    marks = {node.pk: same_place(node.base_url) + node.metrics_path for node in (*nodes, *others)}
    return _told(nodes, others, lambda node: marks[node.pk], "address")


def same_process(nodes: Iterable[ServingNode]) -> dict[UUID, str]:
    """The same by what answered: who was reached, and the life that it told.

    A process that tells no life (TGI, a front end of Dynamo) is only known by its address.
    """
    nodes = [node for node in nodes if node.process]
    others = _others(nodes, Q(process__in={node.process for node in nodes}, last_error=""))
    known = {node.pk: node for node in others} | {node.pk: node for node in nodes}
    return _told(nodes, list(known.values()), lambda node: node.process, "process")


def _others(nodes: list[ServingNode], alike: Q) -> list[ServingNode]:
    """Nodes that are read, of the same organizations."""
    organizations = {node.organization_id for node in nodes}
    found = ServingNode.objects.filter(alike, organization_id__in=organizations)
    return list(found.exclude(state=NodeState.GONE).exclude(metrics_path="").only(*_NEEDED))


def _told(
    nodes: list[ServingNode],
    others: list[ServingNode],
    mark: Callable[[ServingNode], str],
    what: str,
) -> dict[UUID, str]:
    first: dict[tuple[UUID, str], ServingNode] = {}
    for other in sorted(others, key=_age):
        first.setdefault((other.organization_id, mark(other)), other)
    told: dict[UUID, str] = {}
    for node in nodes:
        one = first.get((node.organization_id, mark(node)), node)
        if _age(one) < _age(node):
            told[node.pk] = f"the same {what} as node {one.name!r}: counted there only"
    return told


def _age(node: ServingNode) -> Age:
    return node.created_at, node.pk
