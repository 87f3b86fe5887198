"""Nodes as Kubernetes knows them: the addresses behind services. Pure.

A page of `discovery.k8s.io/v1` EndpointSlices. A node is a pod that is ready (or says nothing of
it, which means ready), at the port named `http`, else the first; a slice without ports has none.
One pod in several slices (of two services, of two address families) is one node.
https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
"""

from collections.abc import Iterator

import msgspec
from msgspec import Struct, field

from enforcement.rules.targetfile import LONGEST_NAME, Target

_SERVICE = "kubernetes.io/service-name"
_LONGEST_LABEL = 200  # of the registry's nodes; names of Kubernetes have up to 253 characters


class _Conditions(Struct):
    ready: bool | None = None
    terminating: bool | None = None


class _Object(Struct):
    kind: str = ""
    name: str = ""


class _Endpoint(Struct, rename="camel"):
    addresses: list[str] = field(default_factory=list)
    conditions: _Conditions = field(default_factory=_Conditions)
    target_ref: _Object | None = None
    node_name: str | None = None
    zone: str | None = None


class _Port(Struct, rename="camel"):
    name: str | None = None
    port: int | None = None
    app_protocol: str | None = None


class _Metadata(Struct):
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)


class _Slice(Struct):
    metadata: _Metadata = field(default_factory=_Metadata)
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class _More(Struct, rename={"token": "continue"}):
    token: str = ""


class Page(Struct):
    """One page of a list. `metadata.token` asks for the next one; empty: this is the last."""

    items: list[_Slice]
    metadata: _More = field(default_factory=_More)


def read_page(body: bytes) -> Page:
    """Raises ValueError: it is no list of EndpointSlices."""
    try:
        return msgspec.json.decode(body, type=Page)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def targets_in(pages: list[Page]) -> list[Target]:
    """The nodes of all pages, each pod once."""
    found: dict[str, Target] = {}
    for page in pages:
        for one in page.items:
            for target in _of_slice(one):
                found.setdefault(target.name, target)
    return list(found.values())


def _of_slice(one: _Slice) -> Iterator[Target]:
    ports = [port for port in one.ports or () if port.port]
    port = next((port for port in ports if port.name == "http"), ports[0] if ports else None)
    if port is None:
        return
    for endpoint in one.endpoints or ():
        is_ready = endpoint.conditions.ready is not False and not endpoint.conditions.terminating
        if is_ready and endpoint.addresses:
            yield _target(one.metadata, endpoint, port)


def _target(metadata: _Metadata, endpoint: _Endpoint, port: _Port) -> Target:
    """Called by namespace and pod. What is cut off would be another's name: then by address."""
    address = endpoint.addresses[0]
    host = f"[{address}]:{port.port}" if ":" in address else f"{address}:{port.port}"
    pod = endpoint.target_ref.name if endpoint.target_ref else ""
    name = f"{metadata.namespace}/{pod}"
    labels = {
        "namespace": metadata.namespace,
        "service": metadata.labels.get(_SERVICE, ""),
        "node": endpoint.node_name or "",
        "zone": endpoint.zone or "",
    }
    return Target(
        name=name if pod and len(name) <= LONGEST_NAME else host,
        base_url=f"{'https' if port.app_protocol == 'https' else 'http'}://{host}",
        labels={name: value[:_LONGEST_LABEL] for name, value in labels.items() if value},
    )
