"""What sidecars are told of budgets."""

import pytest
from django.conf import settings
from django.urls import resolve

from enforcement.domain.policy import compile_policy
from tests.budgets.world import NOW, make_budget, make_world

pytestmark = pytest.mark.django_db


def test_a_budget_tells_where_a_person_gives_it_more() -> None:
    world = make_world()
    budget = make_budget(world)
    (told,) = compile_policy(organization_id=world.id, now=NOW).budgets
    address = settings.PUBLIC_URL
    assert told.increase_url == f"{address}/budgets/{budget.id}/changes/new/"
    assert resolve(told.increase_url.removeprefix(address)).view_name == "budgets:change"
