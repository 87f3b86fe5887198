"""The page of what needs people."""

import pytest
from django.utils import timezone

from budgets.models import ApprovalRequest, Balance, Budget, Notification, ThresholdFiring
from enforcement.domain.thresholds import watch
from enforcement.rules.thresholds import parse_lines
from tests.budgets.world import World, make_balance, make_budget
from tests.visitors import Visitors

LINES = "90%: notify, approval\n95%: pause"


@pytest.fixture
def budget(world: World) -> Budget:
    budget = make_budget(world, thresholds=parse_lines(LINES))
    make_balance(budget, spent_amount=960_000_000)
    watch(now=timezone.now())
    return budget


def test_it_tells_when_there_is_nothing(world: World, visitors: Visitors) -> None:
    page = visitors.viewer.get("/alerts/").content.decode()
    for words in ("Nothing to decide", "No threshold is reached", "Nothing was told yet"):
        assert words in page


def test_it_tells_what_is_asked_and_what_holds(budget: Budget, visitors: Visitors) -> None:
    page = visitors.admin.get("/alerts/").content.decode()
    assert "$0.20" in page
    assert "95%: pause" in page
    assert page.count(">Lift<") == 1  # what only told holds nothing
    assert "Reader has reached 90%: notify, approval" in page
    assert "Approve" not in visitors.viewer.get("/alerts/").content.decode()


def test_an_admin_approves_another_amount(budget: Budget, visitors: Visitors) -> None:
    asked = ApprovalRequest.objects.get()
    wish = {"approve": "", "amount": "0.75", "reason": "launch day"}
    visitors.admin.post(f"/alerts/approvals/{asked.id}/", wish)
    assert Balance.objects.get().limit_amount == 1_750_000_000
    asked.refresh_from_db()
    assert (asked.state, asked.decided_by) == ("approved", "Acme Admin")


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"amount": "1", "reason": ""}, "Say why"),
        ({"amount": "much", "reason": "x"}, "Write dollars"),
        ({"amount": "99999999999", "reason": "x"}, "Write dollars"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_told(
    budget: Budget, visitors: Visitors, wish: dict[str, str], words: str
) -> None:
    asked = ApprovalRequest.objects.get()
    answer = visitors.admin.post(f"/alerts/approvals/{asked.id}/", wish, follow=True)
    assert words in answer.content.decode()
    assert ApprovalRequest.objects.get().state == "pending"


def test_it_is_denied_and_lifted_and_seen(budget: Budget, visitors: Visitors) -> None:
    asked = ApprovalRequest.objects.get()
    visitors.admin.post(f"/alerts/approvals/{asked.id}/", {"deny": "", "reason": "no"})
    firing = ThresholdFiring.objects.get(percent=95)
    visitors.admin.post(f"/alerts/firings/{firing.id}/lift/", {"reason": "go on"})
    visitors.admin.post("/alerts/seen/")
    assert ApprovalRequest.objects.get().state == "denied"
    assert ThresholdFiring.objects.get(percent=95).lifted_by == "Acme Admin"
    assert not Notification.objects.filter(seen_at=None).exists()
    assert visitors.stranger.post(f"/alerts/approvals/{asked.id}/").status_code == 404


def test_the_form_keeps_the_lines(budget: Budget, visitors: Visitors) -> None:
    page = visitors.admin.get(f"/budgets/{budget.id}/edit/").content.decode()
    assert "90%: notify, approval\n95%: pause" in page
    wish = {"name": budget.name, "limit": "1", "mode": "hard", "thresholds": "80%: shout"}
    refused = visitors.admin.post(f"/budgets/{budget.id}/edit/", wish)
    assert "no action &#x27;shout&#x27;" in refused.content.decode()
    visitors.admin.post(f"/budgets/{budget.id}/edit/", wish | {"thresholds": "80%: notify"})
    budget.refresh_from_db()
    assert budget.thresholds[0]["percent"] == 80
    assert "80%: notify" in visitors.viewer.get(f"/budgets/{budget.id}/").content.decode()
