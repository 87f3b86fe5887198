"""Three callers whose rights never change: an owner, a viewer, and a stranger who owns elsewhere."""

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from controlplane.identity.domain.credentials import issue_api_token
from controlplane.identity.enums import Scope
from tests.budgets.world import ACTOR, NOW, World, make_world

Call = Callable[..., APIClient]


def client_of(world: World, scopes: list[str]) -> APIClient:
    issued = issue_api_token(
        organization_id=world.id, name="test", scopes=scopes, actor=ACTOR, now=NOW
    )
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")
    return client


@pytest.fixture
def owner(world: World) -> APIClient:
    return client_of(world, [scope.value for scope in Scope])


@pytest.fixture
def viewer(world: World) -> APIClient:
    return client_of(world, [Scope.READ.value])


@pytest.fixture
def stranger(world: World) -> APIClient:
    return client_of(make_world("stranger"), [scope.value for scope in Scope])
