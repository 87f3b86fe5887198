"""Problem documents: the one shape of every error of the API."""

from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from rest_framework import exceptions
from rest_framework.response import Response

import budgets.errors
import controlplane.identity.errors
import enforcement.errors
import skills.errors
from controlplane import problems
from controlplane.identity.errors import (
    CredentialError,
    NotFoundInOrganizationError,
    SlugTakenError,
    TooManyAttemptsError,
)
from tests.controlplane.world import Api, World, make_world

APPS = (budgets.errors, controlplane.identity.errors, enforcement.errors, skills.errors)


def handled(error: Exception) -> Response:
    response = problems.handle(error, {})
    assert response is not None
    assert response.content_type == "application/problem+json"
    return response


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotFoundInOrganizationError("no agent 1"), 404, "not-found-in-organization"),
        (SlugTakenError("x"), 400, "slug-taken"),
        (CredentialError("unknown token"), 401, "credential"),
        (exceptions.NotAuthenticated(), 401, "not-authenticated"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method-not-allowed"),
        (exceptions.UnsupportedMediaType("text/html"), 415, "unsupported-media-type"),
        (exceptions.Throttled(wait=3), 429, "throttled"),
    ],
)
def test_an_error_has_its_status_and_type(error: Exception, status: int, kind: str) -> None:
    response = handled(error)
    assert response.status_code == status
    assert response.data["type"] == f"urn:comptroller:problem:{kind}"
    assert response.data["status"] == status


def test_waiting_is_told_in_the_header() -> None:
    assert handled(exceptions.Throttled(wait=3)).headers["Retry-After"] == "3"
    assert handled(TooManyAttemptsError(60)).headers["Retry-After"] == "60"


def test_a_wrong_argument_is_named() -> None:
    assert handled(SlugTakenError("x")).data["errors"] == {"slug": ["the slug 'x' is taken"]}


def test_our_own_mistakes_are_not_explained(world: World) -> None:
    assert problems.handle(ZeroDivisionError("secret"), {}) is None


def test_a_database_that_does_not_answer_is_no_mistake_of_ours(
    transactional_db: None, database_url: str
) -> None:
    """The row that every change of policy writes is locked by somebody who does not let go."""
    world = make_world()
    node = {"name": "gpu-a", "base_url": "http://gpu-a:8000"}
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(database_url, dbname=connection.settings_dict["NAME"]) as other:
        other.execute("SELECT 1 FROM identity_organization FOR UPDATE")
        answer = world.clients["admin"].call("POST", "nodes", node)
    connection.close()  # the next one has the usual patience
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["type"] == "urn:comptroller:problem:database-away"
    assert world.clients["admin"].call("POST", "nodes", node).status_code == 201


def test_addresses_that_are_none_are_problems_too(world: World) -> None:
    answer = Api().call("GET", "no-such-thing")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:comptroller:problem:not-found",
        "title": "Not found",
        "status": 404,
        "detail": "Nothing is at this address.",
    }


def test_a_request_that_holds_too_much_is_a_problem_too(world: World) -> None:
    filters = "&".join(f"filter=model:m{n}" for n in range(10_000))
    answer = world.clients["admin"].call("GET", f"usage/summary?{filters}")
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:comptroller:problem:unreadable"
    page = Client().post("/sign-in/", {f"field{n}": "" for n in range(10_000)})
    assert page.status_code == 400
    assert "This request cannot be read" in page.content.decode()


def test_every_error_of_every_app_has_a_status() -> None:
    assert apps.ready
    unmapped: list[Any] = [
        error.__qualname__
        for module in APPS
        for error in vars(module).values()
        if isinstance(error, type)
        and issubclass(error, Exception)
        and error.__module__ == module.__name__
        and problems.handle(error.__new__(error), {}) is None
    ]
    assert unmapped == ["IdentityError", "EnforcementError"]  # abstract: nothing raises them
