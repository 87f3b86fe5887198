"""An organization with a sidecar whose book spoke a moment ago, and a stranger's."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from controlplane.identity.ids import new_id
from controlplane.identity.models import Agent
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.models import Sidecar, Spool
from tests.controlplane.world import Api, World, make_world


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def admin(world: World) -> Api:
    return world.clients["admin"]


@pytest.fixture
def viewer(world: World) -> Api:
    return world.clients["viewer"]


@pytest.fixture
def foreigner(db: None) -> Api:
    return make_world("stranger").clients["owner"]


@pytest.fixture
def agent(world: World) -> Agent:
    return world.agent()


@pytest.fixture
def sidecar(world: World) -> Sidecar:
    return enrol_sidecar(name="edge-1", **world.who).sidecar


@pytest.fixture
def book(sidecar: Sidecar) -> Spool:
    return make_book(sidecar)


def make_book(sidecar: Sidecar, name: str = "edge-1/0") -> Spool:
    spoken_at = datetime.now(tz=UTC)
    return Spool.objects.create(
        id=new_id(),
        organization_id=sidecar.organization_id,
        sidecar=sidecar,
        book=name,
        boot="b1",
        incarnation=UUID(int=1),
        policy_valid_until=spoken_at + timedelta(seconds=30),
        last_sync_at=spoken_at,
    )
