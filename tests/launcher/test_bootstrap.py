"""The example organization is made once; secrets only where they are needed."""

import pytest

from budgets.models import Budget
from controlplane.bootstrap import prepare
from controlplane.identity.models import Agent, AgentKey, Organization, Person, SignInLink
from enforcement.models import Sidecar
from enforcement.rules.keys import parse_key

pytestmark = pytest.mark.django_db


def counts() -> tuple[int, ...]:
    models = (Organization, Person, Agent, AgentKey, Sidecar, Budget)
    return tuple(model.objects.count() for model in models)


def test_the_first_start_makes_everything_that_an_agent_needs() -> None:
    answer = prepare(["agent-key", "sidecar-token"])

    assert counts() == (1, 1, 1, 1, 1, 2)
    assert (answer["organization"], answer["agent"]) == ("example", "assistant")
    key = parse_key(answer["secrets"]["agent-key"])
    assert AgentKey.objects.get().prefix == key.id
    assert Sidecar.objects.get().token.prefix == parse_key(answer["secrets"]["sidecar-token"]).id


def test_a_later_start_makes_only_a_new_link() -> None:
    first = prepare(["agent-key", "sidecar-token"])
    before = counts()

    second = prepare([])

    assert counts() == before
    assert second["secrets"] == {}
    assert first["sign_in_path"] != second["sign_in_path"]
    assert SignInLink.objects.count() == 2


def test_lost_secrets_are_replaced_by_new_ones() -> None:
    first = prepare(["agent-key", "sidecar-token"])

    second = prepare(["agent-key", "sidecar-token"])

    assert counts() == (1, 1, 1, 2, 2, 2)
    assert set(first["secrets"].values()).isdisjoint(second["secrets"].values())


def test_the_hard_budget_needs_no_price() -> None:
    prepare([])

    hard = Budget.objects.get(mode="hard")
    assert (hard.unit, hard.limit_amount, hard.period) == ("tokens", 1_000_000, "day")
