"""Where nodes are found: a file of targets, a name of DNS, the services of a Kubernetes cluster.

    /etc/comptroller/nodes.yaml        dns:vllm.models.svc:8000        kubernetes:models/app=vllm

A place that cannot be read changes nothing: no answer is not an empty fleet.
"""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

import yaml

from enforcement.collectors import loop
from enforcement.collectors.base import CollectorError
from enforcement.collectors.fetch import fetch
from enforcement.rules.endpointslices import Page, read_page, targets_in
from enforcement.rules.targetfile import (
    LONGEST_NAME,
    MOST_TARGETS,
    Target,
    TargetFileError,
    targets_of,
)

MOST_BYTES = 4 * 1024 * 1024
MOST_CHARS = 200  # of a place: nodes carry it as a label
MOST_PAGES = 100
PAGE = 500  # slices, as kubectl asks
WITHIN_S = 10.0  # for all that a place has to say, however it says it
DNS, KUBERNETES = "dns:", "kubernetes:"
# Where a pod finds what lets it ask the API.
SECRETS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123


class PlaceError(ValueError):
    """The place is none, or cannot be read; the text says why."""


def read_places(
    places: Sequence[str],
    *,
    environ: Mapping[str, str] = os.environ,
    secrets: Path = SECRETS,
    within_s: float = WITHIN_S,
) -> dict[str, list[Target] | PlaceError]:
    """The nodes of each place, as they are now. All are asked at once: none waits for another."""

    async def told() -> list[list[Target] | PlaceError]:
        each = (_told(place, environ, secrets, within_s) for place in places)
        return await asyncio.gather(*each)

    return dict(zip(places, loop.run(told()), strict=True))


def read_place(place: str) -> list[Target]:
    """The nodes of one place.

    Raises PlaceError.
    """
    told = read_places([place])[place]
    if isinstance(told, PlaceError):
        raise told
    return told


async def _told(
    place: str, environ: Mapping[str, str], secrets: Path, within_s: float
) -> list[Target] | PlaceError:
    try:
        if len(place) > MOST_CHARS or not place.isprintable():
            raise PlaceError(f"a place has at most {MOST_CHARS} printable characters")
        if not place.startswith((DNS, KUBERNETES)):
            return await asyncio.to_thread(_of_file, Path(place))
        async with asyncio.timeout(within_s):
            if place.startswith(DNS):
                return await _of_dns(place.removeprefix(DNS))
            return await _of_kubernetes(place.removeprefix(KUBERNETES), environ, secrets)
    except TimeoutError:
        return PlaceError(f"{place} did not answer within {within_s:g} s")
    except PlaceError as error:
        return error


def _of_file(path: Path) -> list[Target]:
    if path.exists() and not path.is_file():
        raise PlaceError(f"{path}: it is no file")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PlaceError(f"{path}: {error.strerror}") from error
    if len(text) > MOST_BYTES:
        raise PlaceError(f"{path}: more than {MOST_BYTES // 2**20} MiB")
    try:
        return targets_of(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise PlaceError(f"{path}: neither JSON nor YAML") from error
    except TargetFileError as error:
        raise PlaceError(f"{path}: {error}") from error


async def _of_dns(text: str) -> list[Target]:
    """Every address of the name is a node, called by name and address."""
    name, _, port = text.rpartition(":")
    if not name or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise PlaceError(f"{DNS}{text}: write dns:NAME:PORT")
    try:
        told = await asyncio.get_running_loop().getaddrinfo(
            name, int(port), type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise PlaceError(f"{name}: {getattr(error, 'strerror', None) or 'no name'}") from error
    return [_target(name, address, port) for address in sorted({str(one[4][0]) for one in told})]


def _target(name: str, address: str, port: str) -> Target:
    host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    full = f"{name}/{address}"
    return Target(
        full if len(full) <= LONGEST_NAME else host, f"http://{host}", labels={"dns": name}
    )


async def _of_kubernetes(text: str, environ: Mapping[str, str], secrets: Path) -> list[Target]:
    """The ready pods behind the services of a namespace, those that a label selector leaves."""
    namespace, _, selector = text.partition("/")
    if not _NAMESPACE.fullmatch(namespace):
        raise PlaceError(f"{KUBERNETES}{text}: write kubernetes:NAMESPACE or …/SELECTOR")
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise PlaceError("this is no pod: KUBERNETES_SERVICE_HOST is not set")
    base = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    wish = {"labelSelector": selector, "limit": str(PAGE)}
    pages = [await _page(base, f"{path}?{urlencode(wish)}", secrets)]
    while token := pages[-1].metadata.token:
        if len(pages) == MOST_PAGES:
            raise PlaceError(f"more than {MOST_PAGES * PAGE} slices: narrow the selector")
        more = urlencode(wish | {"continue": token})
        pages.append(await _page(base, f"{path}?{more}", secrets))
    targets = targets_in(pages)
    if len(targets) > MOST_TARGETS:
        raise PlaceError(f"more than {MOST_TARGETS} pods: narrow the selector")
    return targets


async def _page(base: str, path: str, secrets: Path) -> Page:
    """The token goes to the API and nowhere else: `fetch` follows no redirect, asks no proxy."""
    try:
        token = (secrets / "token").read_text().strip()  # read each time: it is rotated
        trust = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlaceError(f"{secrets}: what lets a pod ask Kubernetes cannot be read") from error
    head = {"authorization": f"Bearer {token}"}
    try:
        answer = await fetch(
            base, path, within=WITHIN_S, most=MOST_BYTES, headers=head, trust=trust
        )
        return read_page(answer.body)
    except CollectorError as error:
        raise PlaceError(f"Kubernetes: {error}") from error
    except ValueError as error:
        raise PlaceError(f"Kubernetes: no list of EndpointSlices: {error}") from error
