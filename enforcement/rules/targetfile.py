"""Nodes as a file of targets names them: the format of Prometheus' `file_sd_configs`. Pure.

    [{"targets": ["gpu-a:8000"], "labels": {"rack": "7", "__scheme__": "https"}}]

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
`__scheme__` and `__metrics_path__` are understood as there; `node` names the node of a group that
has one target, else a node is named by its target.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_TARGETS = 5_000
LONGEST_NAME = 100  # characters of a node's name
_TARGET = re.compile(r"[A-Za-z0-9._-]{1,253}:[0-9]{1,5}|\[[0-9A-Fa-f:.]{2,45}\]:[0-9]{1,5}")
_SCHEME, _PATH, _NODE = "__scheme__", "__metrics_path__", "node"


class TargetFileError(ValueError):
    """The file says something else; the text tells where."""


@dataclass(frozen=True, slots=True)
class Target:
    """A node that is named. Labels that Prometheus would drop (`__…`) are left out."""

    name: str
    base_url: str
    metrics_path: str = "/metrics"
    labels: dict[str, str] = field(default_factory=dict)


def targets_of(document: Any) -> list[Target]:
    """The nodes of a document, each name once.

    Raises:
        TargetFileError: not of this form, a name twice, too many, or none at all: an empty file is
            more often a broken one than a fleet that is gone.
    """
    if not isinstance(document, list):
        raise TargetFileError("it is no list of groups")
    found: dict[str, Target] = {}
    for number, group in enumerate(document):
        for target in _of_group(group, f"group {number}"):
            if target.name in found:
                raise TargetFileError(f"group {number}: {target.name!r} is named twice")
            found[target.name] = target
    if not found:
        raise TargetFileError("it names no target")
    if len(found) > MOST_TARGETS:
        raise TargetFileError(f"it names more than {MOST_TARGETS} targets")
    return list(found.values())


def _of_group(group: Any, where: str) -> list[Target]:
    if not isinstance(group, dict) or not set(group) <= {"targets", "labels"}:
        raise TargetFileError(f"{where}: it has `targets` and `labels` only")
    hosts, labels = group.get("targets"), group.get("labels") or {}
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise TargetFileError(f"{where}: `targets` is a list of host:port")
    if not isinstance(labels, dict) or not all(
        isinstance(part, str) for pair in labels.items() for part in pair
    ):
        raise TargetFileError(f"{where}: `labels` are words")
    if _NODE in labels and len(hosts) != 1:
        raise TargetFileError(f"{where}: `node` names the node of one target")
    return [_target(host, labels, where) for host in hosts]


def _target(host: str, labels: Mapping[str, str], where: str) -> Target:
    if not _TARGET.fullmatch(host):
        raise TargetFileError(f"{where}: {host[:100]!r} is no host:port")
    scheme, path = labels.get(_SCHEME, "http"), labels.get(_PATH, "/metrics")
    if scheme not in ("http", "https"):
        raise TargetFileError(f"{where}: {_SCHEME} is http or https")
    if not path.startswith("/") or len(path) > 200:
        raise TargetFileError(f"{where}: {_PATH} begins with a slash, of at most 200 characters")
    name = labels.get(_NODE, host)
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise TargetFileError(f"{where}: a node's name is 1 to {LONGEST_NAME} printable characters")
    own = {k: v for k, v in labels.items() if not k.startswith("__") and k != _NODE}
    return Target(name, f"{scheme}://{host}", path, own)
