"""Thresholds at work: they fire once, do what they say in order, and are armed again."""

from datetime import timedelta
from typing import Any

import pytest

from budgets.domain.approvals import approve, deny_approval
from budgets.domain.budgets import archive_budget, change_budget
from budgets.domain.prices import set_own_price
from budgets.domain.thresholds import active_measures, lift_firing
from budgets.domain.verify import verify
from budgets.errors import (
    ApprovalClosedError,
    ApprovalNotFoundError,
    BudgetValidationError,
    FiringNotFoundError,
)
from budgets.models import (
    ApprovalRequest,
    Balance,
    Budget,
    Notification,
    ThresholdFiring,
    Transfer,
)
from controlplane.audit.models import AuditEntry
from enforcement.domain.policy import compile_policy
from enforcement.domain.thresholds import retire_firings, watch
from enforcement.models import Order
from enforcement.rules.policy import Measure, Mode, Rates
from enforcement.rules.thresholds import parse_lines
from tests.budgets.world import ACTOR, NOW, World, make_balance, make_budget, make_world

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
TODAY = NOW.replace(hour=0, minute=0)
DAILY: dict[str, Any] = {"window_kind": "calendar", "period": "day", "limit_amount": 1_000}


@pytest.fixture
def world() -> World:
    return make_world()


def budget_with(world: World, lines: str, **changes: Any) -> Budget:
    return make_budget(world, **{**DAILY, "thresholds": parse_lines(lines), **changes})


def balance_of(budget: Budget, used: int, **changes: Any) -> Balance:
    return make_balance(
        budget, window_start=TODAY, window_end=TODAY + DAY, spent_amount=used, **changes
    )


def use(balance: Balance, used: int) -> None:
    Balance.objects.filter(id=balance.id).update(spent_amount=used, updated_at=NOW)


def test_it_fires_once_and_is_armed_when_the_balance_is_below(world: World) -> None:
    budget = budget_with(world, "80%: notify")
    balance = balance_of(budget, 799)
    assert watch(now=NOW) == 0
    use(balance, 800)
    assert (watch(now=NOW), watch(now=NOW)) == (1, 0)
    (told,) = Notification.objects.all()
    assert told.title == "Reader has reached 80%: notify"
    use(balance, 700)
    assert watch(now=NOW) == 1
    use(balance, 900)
    assert watch(now=NOW) == 1
    assert ThresholdFiring.objects.count() == 2
    assert AuditEntry.objects.filter(action="budget.threshold").count() == 2


def test_only_what_changed_lately_is_looked_at(world: World) -> None:
    balance_of(budget_with(world, "80%: notify"), 900)
    assert watch(now=NOW, since=NOW + timedelta(seconds=1)) == 0
    assert watch(now=NOW, since=NOW) == 1


def test_a_forecast_fires_before_the_money_is_gone(world: World) -> None:
    balance_of(budget_with(world, "100% forecast: notify"), 450)  # half past ten: 43 % of a day
    assert watch(now=NOW) == 1
    assert Notification.objects.get().title == "Reader will reach 100% forecast: notify"


def test_measures_reach_the_policy_and_leave_it(world: World) -> None:
    budget = budget_with(
        world, "90%: throttle 10/min, reroute small, pause, refuse, cut", per="agent"
    )
    value = str(world.agent.id)
    balance = balance_of(budget, 950, value=value)
    revision = compile_policy(organization_id=world.id, now=NOW).revision
    watch(now=NOW)
    policy = compile_policy(organization_id=world.id, now=NOW)
    common = {"budget": str(budget.id), "value": value, "percent": 90}
    assert policy.measures == [
        Measure(kind="throttle", requests_per_minute=10, **common),
        Measure(kind="reroute", model="small", **common),
        Measure(kind="pause", **common),
        Measure(kind="refuse", **common),
        Measure(kind="cut", **common),
    ]
    assert policy.revision == revision + 1
    use(balance, 100)
    watch(now=NOW)
    after = compile_policy(organization_id=world.id, now=NOW)
    assert (after.measures, after.revision) == ([], revision + 2)


def test_a_new_window_begins_without_measures(world: World) -> None:
    budget = budget_with(world, "100%: refuse")
    balance_of(budget, 1_000)
    watch(now=NOW)
    assert active_measures(world.id)
    assert retire_firings(now=NOW) == 0
    assert retire_firings(now=NOW + DAY) == 1
    assert active_measures(world.id) == []


@pytest.mark.parametrize("how", ["taken away", "archived"])
def test_a_threshold_that_is_gone_does_nothing_more(world: World, how: str) -> None:
    budget = budget_with(world, "100%: refuse")
    balance_of(budget, 1_000)
    watch(now=NOW)
    where: dict[str, Any] = {"organization_id": world.id, "budget_id": budget.id}
    if how == "archived":
        archive_budget(**where, actor=ACTOR, now=NOW)
    else:
        change_budget(**where, changes={"thresholds": []}, actor=ACTOR, now=NOW)
    assert retire_firings(now=NOW) == 1
    assert active_measures(world.id) == []


def test_a_raised_limit_arms_it_again(world: World) -> None:
    budget = budget_with(world, "90%: pause")
    balance_of(budget, 950)
    watch(now=NOW)
    change_budget(
        organization_id=world.id,
        budget_id=budget.id,
        changes={"limit_amount": 2_000},
        actor=ACTOR,
        now=NOW,
    )
    assert watch(now=NOW, since=NOW) == 1
    assert active_measures(world.id) == []


def test_a_kill_stops_the_agents_whose_budget_it_is(world: World) -> None:
    budget = budget_with(world, "150%: notify, kill", per="agent", mode=Mode.SOFT)
    balance_of(budget, 1_500, value=str(world.agent.id))
    watch(now=NOW)
    world.agent.refresh_from_db()
    world.loner.refresh_from_db()
    assert (world.agent.state, world.loner.state) == ("killed", "active")
    (order,) = Order.objects.all()
    assert (order.kind, order.actor) == ("kill", "threshold")
    assert "has reached 150%: notify, kill" in order.reason


def test_a_person_lifts_what_holds_and_it_stays_lifted(world: World) -> None:
    budget = budget_with(world, "100%: refuse")
    balance_of(budget, 1_000)
    watch(now=NOW)
    firing = ThresholdFiring.objects.get()
    where: dict[str, Any] = {"organization_id": world.id, "actor": ACTOR, "now": NOW}
    with pytest.raises(BudgetValidationError, match="say why"):
        lift_firing(firing_id=firing.id, reason=" ", **where)
    lift_firing(firing_id=firing.id, reason="the demo must go on", **where)
    assert (active_measures(world.id), watch(now=NOW)) == ([], 0)
    with pytest.raises(FiringNotFoundError):
        lift_firing(firing_id=firing.id, reason="again", **where)
    stranger = make_world("stranger")
    with pytest.raises(FiringNotFoundError):
        lift_firing(**where | {"organization_id": stranger.id}, firing_id=firing.id, reason="x")


# ------------------------------------------------------------------------------ approvals


@pytest.fixture
def asked(world: World) -> ApprovalRequest:
    balance_of(budget_with(world, "90%: approval"), 950)
    watch(now=NOW)
    return ApprovalRequest.objects.get()


def test_a_fifth_is_asked_for_once(world: World, asked: ApprovalRequest) -> None:
    assert (asked.amount, asked.state) == (200, "pending")
    use(asked.balance, 100)
    watch(now=NOW)
    use(asked.balance, 950)
    watch(now=NOW)  # fired again, but the question is open
    assert ApprovalRequest.objects.count() == 1


@pytest.mark.parametrize(("amount", "limit"), [(None, 1_200), (50, 1_050)])
def test_an_approval_raises_its_balance_for_its_window(
    world: World, asked: ApprovalRequest, amount: int | None, limit: int
) -> None:
    approve(
        organization_id=world.id,
        approval_id=asked.id,
        amount=amount,
        actor=ACTOR,
        reason="it is worth it",
        now=NOW,
    )
    balance = Balance.objects.get()
    assert (balance.limit_amount, balance.cap_amount) == (limit, limit)
    asked.refresh_from_db()
    assert (asked.state, asked.decided_by, asked.decision) == (
        "approved",
        ACTOR.label,
        "it is worth it",
    )
    assert Transfer.objects.get(kind="limit").amount == limit
    assert AuditEntry.objects.get(action="budget.approval_approved").after is not None
    change_budget(
        organization_id=world.id,
        budget_id=asked.budget_id,
        changes={"limit_amount": 500},
        actor=ACTOR,
        now=NOW,
    )
    assert Balance.objects.get().limit_amount == 500 + limit - 1_000
    Balance.objects.update(spent_amount=0)  # which no journal knows
    assert verify().holds


def test_a_denial_changes_nothing(world: World, asked: ApprovalRequest) -> None:
    where: dict[str, Any] = {"organization_id": world.id, "actor": ACTOR, "now": NOW}
    deny_approval(approval_id=asked.id, reason="no", **where)
    assert Balance.objects.get().limit_amount == 1_000
    with pytest.raises(ApprovalClosedError, match="it was denied already, by Olive Owner"):
        approve(approval_id=asked.id, amount=None, reason="yes", **where)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"reason": ""}, BudgetValidationError),
        ({"amount": 0}, BudgetValidationError),
        ({"amount": -1}, BudgetValidationError),
        ({"amount": 2**63 - 500}, BudgetValidationError),
        ({"now": NOW + DAY}, ApprovalClosedError),
        ({"approval_id": "00000000-0000-0000-0000-000000000000"}, ApprovalNotFoundError),
    ],
)
def test_an_approval_that_cannot_be_changes_nothing(
    world: World, asked: ApprovalRequest, change: dict[str, Any], error: type[Exception]
) -> None:
    wish: dict[str, Any] = {"approval_id": asked.id, "amount": None, "reason": "yes", "now": NOW}
    with pytest.raises(error):
        approve(organization_id=world.id, actor=ACTOR, **wish | change)
    assert (Balance.objects.get().limit_amount, ApprovalRequest.objects.get().state) == (
        1_000,
        "pending",
    )


def test_a_question_ends_with_its_window(world: World, asked: ApprovalRequest) -> None:
    retire_firings(now=NOW + DAY)
    asked.refresh_from_db()
    assert (asked.state, asked.decided_by) == ("expired", "system")


# ------------------------------------------------------------------------------ what may be set


@pytest.mark.parametrize(
    ("lines", "changes", "words"),
    [
        ("80%: pause", {"mode": "observe"}, "a budget that observes can only notify, not pause"),
        ("80%: kill", {"per": "model"}, "kill needs to know whom"),
        (
            "80%: approval",
            {"unit": "concurrency", "window_kind": "lifetime", "period": ""},
            "permits are raised by their limit",
        ),
        ("80%: reroute nosuch", {}, "80 %: no model here fits 'nosuch'"),
    ],
)
def test_what_a_budget_cannot_do_is_refused(
    world: World, lines: str, changes: dict[str, Any], words: str
) -> None:
    set_own_price(
        organization_id=world.id,
        model="known",
        rates=Rates(),
        reason="x",
        actor=ACTOR,
        now=NOW,
    )
    with pytest.raises(BudgetValidationError, match=words) as refused:
        budget_with(world, lines, **changes)
    assert refused.value.field == "thresholds"


def test_an_amount_that_no_balance_can_have_is_refused(world: World) -> None:
    wish = [{"percent": 80, "actions": [{"kind": "approval", "amount": 2**63 - 1}]}]
    with pytest.raises(BudgetValidationError, match="no balance can have so much more"):
        make_budget(world, thresholds=wish)
