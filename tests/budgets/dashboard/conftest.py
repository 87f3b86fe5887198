import pytest

from tests.budgets.world import World
from tests.visitors import Visitors, make_visitors


@pytest.fixture
def visitors(world: World) -> Visitors:
    return make_visitors(world.organization)
