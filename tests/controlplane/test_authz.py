"""Every address × method × caller, against the table in authz.txt. A new address needs a row."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from controlplane.identity import domain
from controlplane.identity.access import ROLE_SCOPES
from controlplane.identity.enums import Role, Scope
from tests.controlplane.routes import METHODS, example, routes
from tests.controlplane.world import EVERY_SCOPE, Api, World

API = "/api/v1/"
STREAMS = {"/live/"}  # an endless answer; the dashboard's own tests follow it
TABLE = {
    (route, method): needed
    for method, route, needed in (
        line.split()
        for line in (Path(__file__).parent / "authz.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}
API_ROUTES = [route for route in routes() if route.startswith(API)]
PAGES = [route for route in routes() if not route.startswith(API) and route not in STREAMS]
OPEN = frozenset({"anyone"})


def call(client: Client, method: str, route: str) -> int:
    """The status that somebody gets at this address, for an object that does not exist."""
    kind = "application/json" if route.startswith("/api/") else "application/x-www-form-urlencoded"
    answer: Any = client.generic(method, example(route), b"", content_type=kind)
    return int(answer.status_code)


def token(world: World, scopes: list[str]) -> Api:
    return Api(domain.issue_api_token(name="t", scopes=scopes, **world.who).secret)


def session(world: World, role: str) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(world.people[role])
    return client


def test_the_table_names_no_address_that_is_gone() -> None:
    known = set(routes())
    assert sorted({route for route, _ in TABLE} - known) == []
    assert {needed for (route, _), needed in TABLE.items() if route.startswith(API)} <= {
        *Scope.values,
        "session",
    }


@pytest.mark.parametrize("route", API_ROUTES)
def test_an_api_address_answers_its_scope_alone(world: World, route: str) -> None:
    strangers = (
        Api(),
        world.clients["sidecar"],
        Api(domain.issue_agent_key(agent_id=world.agent().pk, name="k", **world.who).secret),
    )
    everything = token(world, EVERY_SCOPE)
    for method in METHODS:
        needed = TABLE.get((route, method))
        assert [call(client, method, route) for client in strangers] == [401, 401, 401]
        if needed is None:
            assert call(everything, method, route) == 405, f"{method} {route} needs a row"
        elif needed == "session":
            assert call(everything, method, route) == 403
            assert call(session(world, "viewer"), method, route) == 400
        else:
            others = [scope for scope in EVERY_SCOPE if scope != needed]
            assert call(token(world, others), method, route) == 403
            status = call(token(world, [needed]), method, route)
            assert status not in (401, 403, 405)
            assert status < 500


@pytest.mark.parametrize("role", list(Role.values))
def test_a_role_does_what_its_scopes_say(world: World, role: str) -> None:
    client = session(world, role)
    for (route, method), needed in TABLE.items():
        if route.startswith(API) and needed != "session":
            refused = call(client, method, route) == 403
            assert refused == (needed not in ROLE_SCOPES[role]), f"{method} {route}"


@pytest.mark.parametrize("route", PAGES)
def test_a_page_is_for_whom_the_table_says(world: World, route: str) -> None:
    clients = (Api(), session(world, "viewer"), session(world, "owner"))
    for method in METHODS:
        needed = TABLE.get((route, method))
        nobody, viewer, owner = (call(client, method, route) for client in clients)
        assert owner < 500
        if needed is None:  # refused, or read by whatever method
            assert owner in (405, call(clients[2], "GET", route)), f"{method} {route} needs a row"
            continue
        assert owner not in (401, 403, 405)
        assert (nobody in (302, 401)) == (needed not in OPEN) or route.startswith(
            ("/sign", "/pref")
        )
        assert (viewer == 403) == (needed == "writer")
