"""What no firing, no question and no notification may be."""

from typing import Any

import pytest

from budgets.models import ApprovalRequest, Balance, Notification, ThresholdFiring
from tests.budgets.constraints.attack import refused_by
from tests.budgets.world import NOW, World, make_balance, make_budget, make_world


@pytest.fixture
def balance(world: World) -> Balance:
    return make_balance(make_budget(world))


def common(balance: Balance) -> dict[str, Any]:
    return {
        "organization_id": balance.organization_id,
        "budget_id": balance.budget_id,
        "balance_id": balance.id,
    }


def fire(balance: Balance, **changes: Any) -> ThresholdFiring:
    values = {
        "basis": "actual",
        "percent": 80,
        "actions": [],
        "used_amount": 1,
        "limit_amount": 1,
        "fired_at": NOW,
    }
    return ThresholdFiring.objects.create(**common(balance) | values | changes)


def ask(balance: Balance, **changes: Any) -> ApprovalRequest:
    values = {"amount": 5, "reason": "more", "asked_at": NOW}
    return ApprovalRequest.objects.create(**common(balance) | values | changes)


def tell(world: World, **changes: Any) -> Notification:
    values = {"organization_id": world.id, "title": "x", "created_at": NOW}
    return Notification.objects.create(**values | changes)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"percent": 0}, "firing_of_a_threshold"),
        ({"percent": 1_001}, "firing_of_a_threshold"),
        ({"basis": "guess"}, "firing_of_a_threshold"),
        ({"lifted_at": NOW}, "firing_lifted_by_somebody"),
        ({"lifted_by": "Olive"}, "firing_lifted_by_somebody"),
    ],
)
def test_a_firing_is_refused(balance: Balance, changes: dict[str, Any], constraint: str) -> None:
    with refused_by(constraint):
        fire(balance, **changes)


def test_a_threshold_fires_once_until_it_is_armed(balance: Balance) -> None:
    first = fire(balance)
    with refused_by("firing_once_until_armed"):
        fire(balance)
    first.rearmed_at = NOW
    first.save()
    assert fire(balance).id != first.id


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"amount": 0}, "approval_amount_positive"),
        ({"state": "approved"}, "approval_decided_by_somebody"),
        ({"state": "denied", "decided_at": NOW}, "approval_decided_by_somebody"),
        ({"state": "lost", "decided_at": NOW, "decided_by": "x"}, "approval_decided_by_somebody"),
        ({"decided_by": "Olive"}, "approval_decided_by_somebody"),
    ],
)
def test_a_question_is_refused(balance: Balance, changes: dict[str, Any], constraint: str) -> None:
    with refused_by(constraint):
        ask(balance, **changes)


def test_a_question_is_open_once(balance: Balance) -> None:
    ask(balance)
    with refused_by("approval_asked_once"):
        ask(balance)
    assert ask(balance, state="denied", decided_at=NOW, decided_by="Olive")


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"title": ""}, "notification_says_something"),
        ({"seen_at": NOW}, "notification_seen_by_somebody"),
        ({"seen_by": "Olive"}, "notification_seen_by_somebody"),
    ],
)
def test_a_notification_is_refused(world: World, changes: dict[str, Any], constraint: str) -> None:
    with refused_by(constraint):
        tell(world, **changes)


def test_all_stay_in_their_organization(balance: Balance) -> None:
    stranger = make_world("stranger")
    other = make_balance(make_budget(stranger))
    mixed = {"organization_id": stranger.id}
    with refused_by("firing_budget_of_same_organization"):
        fire(balance, **mixed)
    with refused_by("firing_balance_of_same_organization"):
        fire(balance, **mixed, budget_id=other.budget_id)
    with refused_by("approval_budget_of_same_organization"):
        ask(balance, **mixed)
    with refused_by("approval_balance_of_same_organization"):
        ask(balance, **mixed, budget_id=other.budget_id)
    with refused_by("notification_budget_of_same_organization"):
        tell(stranger, budget_id=balance.budget_id)
