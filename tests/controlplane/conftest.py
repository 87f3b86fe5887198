import pytest

from tests.controlplane.world import Api, World, make_world


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def stranger(db: None) -> World:
    return make_world("stranger")


@pytest.fixture
def owner(world: World) -> Api:
    return world.clients["owner"]


@pytest.fixture
def admin(world: World) -> Api:
    return world.clients["admin"]


@pytest.fixture
def viewer(world: World) -> Api:
    return world.clients["viewer"]


@pytest.fixture
def foreigner(stranger: World) -> Api:
    """The owner of another organization."""
    return stranger.clients["owner"]
