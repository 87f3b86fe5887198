"""Callers of the API: full rights, reading only, and a stranger of another organization."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.audit.domain import Actor
from controlplane.identity.domain import issue_api_token
from controlplane.identity.enums import Scope
from controlplane.identity.models import Organization


class Api:
    """A client of the API with one token."""

    def __init__(self, organization: Organization, *scopes: str) -> None:
        issued = issue_api_token(
            organization_id=organization.pk,
            name="test",
            actor=Actor(kind="system", id="", label="tests"),
            now=timezone.now(),
            scopes=list(scopes),
        )
        self._client = Client(headers={"Authorization": f"Bearer {issued.secret}"})

    def get(self, path: str) -> Any:
        return self._client.get(f"/api/v1/{path}")

    def post(self, path: str, body: Any = None) -> Any:
        return self._client.post(f"/api/v1/{path}", body or {}, content_type="application/json")

    def put(self, path: str, body: Any) -> Any:
        return self._client.put(f"/api/v1/{path}", body, content_type="application/json")

    def upload(self, path: str, **fields: Any) -> Any:
        return self._client.post(f"/api/v1/{path}", fields)


@pytest.fixture
def api(organization: Organization) -> Api:
    return Api(organization, Scope.READ, Scope.CARDS_WRITE, Scope.ADMIN)


@pytest.fixture
def reader(organization: Organization) -> Api:
    return Api(organization, Scope.READ)


@pytest.fixture
def foreigner(stranger: Organization) -> Api:
    return Api(stranger, Scope.READ, Scope.CARDS_WRITE, Scope.ADMIN)


def problem(response: Any) -> tuple[int, str]:
    """Status and kind of a problem document."""
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    return response.status_code, body["type"].removeprefix("urn:comptroller:problem:")
