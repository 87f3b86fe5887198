"""Nodes that a place names (`enforcement.domain.places`): entered, changed, taken out as it says.

A node that was found carries the place as its label `comptroller/source`. Nodes without it belong
to people or sidecars, those with another to that place: they are left alone. Whoever takes the
label away keeps the node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from budgets.domain.locks import name_nodes_alone
from controlplane.audit.domain import Actor, record
from controlplane.identity.queries import find_organization
from enforcement.domain.nodes import check_address, check_labels, insert_node, same_place
from enforcement.domain.places import PlaceError, read_places
from enforcement.enums import NodeState
from enforcement.errors import EnforcementError, NodeNameTakenError
from enforcement.models import ServingNode
from enforcement.rules.targetfile import Target

SOURCE = "comptroller/source"


@dataclass
class Discovered:
    """Names of nodes by what became of them; `refused` with the reason."""

    entered: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # as they were, or not of this place
    refused: dict[str, str] = field(default_factory=dict)


@transaction.atomic
def discover(
    *, organization_id: UUID, place: str, targets: Sequence[Target], actor: Actor, now: datetime
) -> Discovered:
    """Make the registry say what the place says. What one target does wrong costs only itself."""
    name_nodes_alone(organization_id)
    rows = ServingNode.objects.select_for_update().filter(organization_id=organization_id)
    known = {node.name: node for node in rows.order_by("id")}
    visit = _Visit(organization_id, place, actor, now, known)
    for target in targets:
        visit.take(target)
    visit.leave({target.name for target in targets})
    return visit.found


class _Visit:
    """One reading of a place."""

    def __init__(
        self,
        organization_id: UUID,
        place: str,
        actor: Actor,
        now: datetime,
        known: dict[str, ServingNode],
    ) -> None:
        self.found = Discovered()
        self._organization_id, self._place, self._known = organization_id, place, known
        self._actor, self._now = actor, now
        self._places = {
            _place(node.base_url, node.metrics_path): node.name
            for node in known.values()
            if node.metrics_path and node.state != NodeState.GONE
        }

    def take(self, target: Target) -> None:
        node = self._known.get(target.name)
        labels = {**target.labels, SOURCE: self._place}
        if node is not None and (not self._is_ours(node) or node.removed_at is not None):
            self.found.kept.append(target.name)
            return
        try:
            check_address(target.base_url)
            check_labels(labels)
            self._check_place(target)
            if node is None:
                self._enter(target, labels)
            else:
                self._renew(node, target, labels)
        except EnforcementError as error:
            self.found.refused[target.name] = str(error)

    def leave(self, named: set[str]) -> None:
        """Nodes of the place that it names no more are gone."""
        for node in self._known.values():
            if self._is_ours(node) and node.name not in named and node.state != NodeState.GONE:
                self._change(node, {"state": NodeState.GONE.value})
                self.found.gone.append(node.name)

    def _is_ours(self, node: ServingNode) -> bool:
        return bool(node.labels.get(SOURCE) == self._place)

    def _check_place(self, target: Target) -> None:
        place = _place(target.base_url, target.metrics_path)
        other = self._places.setdefault(place, target.name)
        if other != target.name:
            raise NodeNameTakenError(f"the node {other!r} is read at this address")

    def _enter(self, target: Target, labels: dict[str, str]) -> None:
        insert_node(
            organization_id=self._organization_id,
            name=target.name,
            base_url=target.base_url,
            engine="unknown",
            metrics_path=target.metrics_path,
            labels=labels,
            actor=self._actor,
            now=self._now,
        )
        self.found.entered.append(target.name)

    def _renew(self, node: ServingNode, target: Target, labels: dict[str, str]) -> None:
        wanted = {"base_url": target.base_url, "metrics_path": target.metrics_path}
        if node.state == NodeState.GONE:
            wanted["state"] = NodeState.ACTIVE.value
        same = all(getattr(node, name) == value for name, value in wanted.items())
        if same and node.labels == labels:
            self.found.kept.append(target.name)
            return
        node.labels = labels
        self._change(node, wanted)
        self.found.changed.append(target.name)

    def _change(self, node: ServingNode, wanted: dict[str, str]) -> None:
        before = {name: str(getattr(node, name)) for name in wanted}
        for name, value in wanted.items():
            setattr(node, name, value)
        node.save(update_fields=["labels", *wanted])
        record(
            organization_id=self._organization_id,
            actor=self._actor,
            action="node.change",
            object_kind="node",
            object_id=str(node.pk),
            before=before,
            after={"name": node.name, **wanted},
            now=self._now,
        )


def _place(base_url: str, metrics_path: str) -> str:
    return same_place(base_url) + metrics_path


def discover_configured(*, now: datetime) -> None:
    """What COMPTROLLER_NODES_FROM names, for COMPTROLLER_NODES_ORGANIZATION.

    Raises PlaceError: a place that cannot be read, after all others were; or no organization.
    """
    if not settings.NODES_FROM:
        return
    organization = find_organization(settings.NODES_ORGANIZATION)
    if organization is None:
        raise PlaceError("COMPTROLLER_NODES_ORGANIZATION names no organization")
    failures = []
    for place, told in read_places(settings.NODES_FROM).items():
        if isinstance(told, PlaceError):
            failures.append(str(told))
            continue
        discover(
            organization_id=organization.id,
            place=place,
            targets=told,
            actor=Actor.system("discovery"),
            now=now,
        )
    if failures:
        raise PlaceError("; ".join(failures))
