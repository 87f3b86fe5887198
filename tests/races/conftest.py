import pytest

from tests.budgets.world import World, make_world


@pytest.fixture
def world(transactional_db: None) -> World:
    return make_world()
