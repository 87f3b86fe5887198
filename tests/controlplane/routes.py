"""Every address that the program answers, read from its URL resolver."""

import re
from collections.abc import Iterator
from typing import Any

from django.urls import get_resolver

from tests.controlplane.world import UNKNOWN

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
FILLERS = {"int": "1", "slug": "kill", "str": "unknown", "uuid": str(UNKNOWN), "path": "x"}


def routes() -> list[str]:
    """Each route as people write it: `/api/v1/agents/{pk}`."""
    return sorted({_readable(route) for route in _walk(get_resolver(), "")})


def example(route: str) -> str:
    """An address of the route, for objects that do not exist."""
    for name, kind in _KINDS.get(route, {}).items():
        route = route.replace(f"{{{name}}}", FILLERS[kind])
    return route


_KINDS: dict[str, dict[str, str]] = {}


def _walk(resolver: Any, prefix: str) -> Iterator[str]:
    for pattern in resolver.url_patterns:
        path = prefix + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _walk(pattern, path)
        else:
            yield path


def _readable(route: str) -> str:
    kinds: dict[str, str] = {}

    def converter(match: re.Match[str]) -> str:
        kinds[match["name"]] = match["kind"]
        return f"{{{match['name']}}}"

    route = re.sub(r"<(?P<kind>\w+):(?P<name>\w+)>", converter, route)
    for name in re.findall(r"\(\?P<(\w+)>", route):
        kinds[name] = "uuid"
    route = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", route)
    route = "/" + route.replace("^", "").replace("$", "").replace(r"\Z", "")
    _KINDS[route] = kinds
    return route
