import pytest

from tests.budgets.world import World, make_world
from tests.visitors import Visitors, make_visitors


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def visitors(world: World) -> Visitors:
    return make_visitors(world.organization)
