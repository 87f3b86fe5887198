import pytest

from enforcement.models import ServingNode
from tests.budgets.world import World, make_world
from tests.enforcement.domain.nodes import make_node


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def node(world: World) -> ServingNode:
    return make_node(world)
