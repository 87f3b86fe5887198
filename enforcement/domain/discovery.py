"""Nodes that a file of targets names, entered, changed and taken out as it says.

A node that was found carries the label `comptroller/source`. Nodes without it belong to people or
sidecars and are left alone; whoever takes the label away keeps the node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

import yaml
from django.conf import settings
from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.queries import find_organization
from enforcement.domain.nodes import check_address, check_labels, insert_node, same_place
from enforcement.enums import NodeState
from enforcement.errors import EnforcementError, NodeNameTakenError
from enforcement.models import ServingNode
from enforcement.rules.targetfile import Target, TargetFileError, targets_of

SOURCE = "comptroller/source"
FILE = "file"
MOST_BYTES = 4 * 1024 * 1024


@dataclass
class Discovered:
    """Names of nodes by what became of them; `refused` with the reason."""

    entered: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # as they were, or not of this file
    refused: dict[str, str] = field(default_factory=dict)


def read_targets(path: Path) -> list[Target]:
    """The targets of a file, JSON or YAML.

    Raises TargetFileError: it cannot be read, or says something else.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TargetFileError(f"{path}: {error.strerror}") from error
    if len(text) > MOST_BYTES:
        raise TargetFileError(f"{path}: more than {MOST_BYTES // 2**20} MiB")
    try:
        return targets_of(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise TargetFileError(f"{path}: neither JSON nor YAML") from error
    except TargetFileError as error:
        raise TargetFileError(f"{path}: {error}") from error


@transaction.atomic
def discover(
    *, organization_id: UUID, targets: Sequence[Target], actor: Actor, now: datetime
) -> Discovered:
    """Make the registry say what the file says. What one target does wrong costs only itself."""
    rows = ServingNode.objects.select_for_update().filter(organization_id=organization_id)
    visit = _Visit(organization_id, actor, now, {node.name: node for node in rows.order_by("id")})
    for target in targets:
        visit.take(target)
    visit.leave({target.name for target in targets})
    return visit.found


class _Visit:
    """One reading of the file."""

    def __init__(
        self, organization_id: UUID, actor: Actor, now: datetime, known: dict[str, ServingNode]
    ) -> None:
        self.found = Discovered()
        self._organization_id, self._known = organization_id, known
        self._actor, self._now = actor, now
        self._places = {
            _place(node.base_url, node.metrics_path): node.name
            for node in known.values()
            if node.metrics_path and node.state != NodeState.GONE
        }

    def take(self, target: Target) -> None:
        node = self._known.get(target.name)
        labels = {**target.labels, SOURCE: FILE}
        if node is not None and (not _is_ours(node) or node.removed_at is not None):
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
        """Nodes of the file that it names no more are gone."""
        for node in self._known.values():
            if _is_ours(node) and node.name not in named and node.state != NodeState.GONE:
                self._change(node, {"state": NodeState.GONE.value})
                self.found.gone.append(node.name)

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


def _is_ours(node: ServingNode) -> bool:
    return bool(node.labels.get(SOURCE) == FILE)


def discover_configured(*, now: datetime) -> Discovered | None:
    """What COMPTROLLER_NODES_FILE names, for COMPTROLLER_NODES_ORGANIZATION; None without a file.

    Raises TargetFileError: the file, or its organization, is not there or says something else.
    """
    if not settings.NODES_FILE:
        return None
    organization = find_organization(settings.NODES_ORGANIZATION)
    if organization is None:
        raise TargetFileError("COMPTROLLER_NODES_ORGANIZATION names no organization")
    return discover(
        organization_id=organization.id,
        targets=read_targets(Path(settings.NODES_FILE)),
        actor=Actor.system("discovery"),
        now=now,
    )
