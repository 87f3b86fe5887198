"""Session trees in the ledger: nothing is given twice, and all of it comes home."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.domain.budgets import change_budget
from budgets.domain.delegations import (
    MAX_CHILDREN,
    Given,
    Wish,
    delegate,
    end_delegation,
    settle_delegations,
)
from budgets.domain.verify import verify
from budgets.errors import DelegationError, DelegationNotFoundError, NotFreeError
from budgets.models import Balance, Budget, Delegation, Transfer
from enforcement.rules.policy import Mode
from tests.budgets.world import ACTOR, NOW, World, make_balance, make_budget, make_lease, make_world

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


@pytest.fixture
def run(world: World) -> Budget:
    """A thousand tokens for each session of the agent, under a cap of the agent."""
    make_budget(world, name="Cap", unit="tokens", limit_amount=100_000)
    return make_budget(world, name="Run", unit="tokens", limit_amount=1_000, per="session")


def wish(world: World, budget: Budget, child: str = "s1/c", **changes: Any) -> Wish:
    values: dict[str, Any] = {
        "parent_agent": world.agent.id,
        "parent_session": "s1",
        "lineage": None,
        "values": {str(budget.id): "s1"},
        "child_session": child,
        "amounts": {"Run": 400},
    }
    return Wish(**values | changes)


def give(world: World, budget: Budget, child: str = "s1/c", **changes: Any) -> Given:
    return delegate(organization_id=world.id, wish=wish(world, budget, child, **changes), now=NOW)


def below(world: World, budget: Budget, parent: Given, child: str, amount: int) -> Given:
    """A grandchild."""
    return give(
        world,
        budget,
        child,
        lineage=parent.lineage,
        parent_session=parent.lineage.session,
        values={str(budget.id): parent.lineage.session},
        amounts={"Run": amount},
    )


def end(world: World, given: Given, **changes: Any) -> None:
    values: dict[str, Any] = {"agent_id": None, "now": NOW}
    end_delegation(organization_id=world.id, handle=given.lineage.delegation, **values | changes)


def standing(budget: Budget, session: str) -> tuple[int, int, int, int]:
    """Limit, spent, given away, free."""
    row = Balance.objects.get(budget=budget, value=session)
    return row.limit_amount, row.spent_amount, row.given_amount, row.free_amount


def spend(budget: Budget, session: str, amount: int, **more: int) -> None:
    row = Balance.objects.get(budget=budget, value=session)
    row.spent_amount += amount
    for name, value in more.items():
        setattr(row, name, value)
    row.save()
    if amount:
        Transfer.objects.create(
            organization_id=budget.organization_id,
            balance=row,
            kind="usage",
            amount=amount,
            at=NOW,
        )


def test_what_is_given_is_in_one_place(world: World, run: Budget) -> None:
    given = give(world, run)
    assert standing(run, "s1") == (1_000, 0, 400, 600)
    assert standing(run, "s1/c") == (400, 0, 0, 400)
    assert given.amounts == {"Run": ("tokens", 400)}
    assert [level.session for level in given.lineage.levels] == ["s1/c", "s1"]
    assert given.lineage.levels[0].budgets == [str(run.id)]
    assert verify().holds


def test_what_a_child_leaves_comes_home_and_what_it_spent_is_settled(
    world: World, run: Budget
) -> None:
    given = give(world, run)
    spend(run, "s1/c", 150)
    end(world, given)
    assert standing(run, "s1") == (1_000, 150, 0, 850)
    assert standing(run, "s1/c") == (150, 150, 0, 0)
    row = Delegation.objects.get()
    assert (row.state, row.home_amount, row.spent_amount) == ("closed", 250, 150)
    assert verify().holds
    end(world, given)  # again: nothing more
    assert standing(run, "s1") == (1_000, 150, 0, 850)


def test_what_is_out_comes_home_later(world: World, run: Budget) -> None:
    given = give(world, run)
    child = Balance.objects.get(budget=run, value="s1/c")
    lease = make_lease(child, amount=300)
    end(world, given)
    assert standing(run, "s1") == (1_000, 0, 300, 700)
    child.refresh_from_db()
    assert child.closed_at == NOW  # nothing more is granted
    assert Delegation.objects.get().state == "closing"
    assert settle_delegations(now=NOW) == 1  # still out
    child.held_amount, child.spent_amount = 0, 120
    child.save()
    for kind, amount in (("settle", 120), ("release", 180)):
        Transfer.objects.create(
            organization_id=world.id, balance=child, lease=lease, kind=kind, amount=amount, at=NOW
        )
    lease.used_amount, lease.returned_amount = 120, 180
    lease.state, lease.closed_at = "settled", NOW
    lease.save()
    assert settle_delegations(now=NOW) == 1
    assert standing(run, "s1") == (1_000, 120, 0, 880)
    assert (settle_delegations(now=NOW), verify().holds) == (0, True)


def test_a_child_that_overran_leaves_its_parent_the_truth(world: World, run: Budget) -> None:
    given = give(world, run)
    spend(run, "s1/c", 380, overrun_amount=50)
    child = Balance.objects.get(budget=run, value="s1/c")
    Transfer.objects.create(
        organization_id=world.id, balance=child, kind="overrun", amount=50, at=NOW
    )
    end(world, given)
    parent = Balance.objects.get(budget=run, value="s1")
    assert parent.spent_amount + parent.overrun_amount == 430
    assert verify().holds


def test_its_time_is_over(world: World, run: Budget) -> None:
    give(world, run, expires_in=10 * SECOND)
    assert settle_delegations(now=NOW + 9 * SECOND) == 0
    assert settle_delegations(now=NOW + 10 * SECOND) == 1
    assert standing(run, "s1") == (1_000, 0, 0, 1_000)


def test_a_tree_ends_from_its_leaves(world: World, run: Budget) -> None:
    child = give(world, run)
    below(world, run, child, "s1/c/g", 100)
    spend(run, "s1/c", 20)
    spend(run, "s1/c/g", 30)
    assert standing(run, "s1/c") == (400, 20, 100, 280)
    end(world, child)
    assert standing(run, "s1") == (1_000, 50, 0, 950)
    assert standing(run, "s1/c") == (50, 50, 0, 0)
    assert set(Delegation.objects.values_list("state", flat=True)) == {"closed"}
    assert verify().holds


def test_a_percent_is_given_of_every_budget(world: World, run: Budget) -> None:
    money = make_budget(world, name="Money", limit_amount=1_000_000, per="session", mode=Mode.HARD)
    make_balance(money, value="s1", spent_amount=200_000)
    values = {str(run.id): "s1", str(money.id): "s1"}
    given = give(world, run, amounts={}, percent=25, values=values)
    assert given.amounts == {"Run": ("tokens", 250), "Money": ("usd", 200_000)}


def test_more_than_is_free_is_not_given(world: World, run: Budget) -> None:
    make_balance(run, value="s1", spent_amount=500, held_amount=200)
    with pytest.raises(NotFreeError, match="300 is free, and 200 is out") as refused:
        give(world, run)
    assert refused.value.held == 200
    assert not Delegation.objects.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"child_session": ""}, "a session has 1 to 128"),
        ({"child_session": "x" * 129}, "a session has 1 to 128"),
        ({"child_session": "s1"}, "cannot be its own child"),
        ({"parent_session": ""}, "say which session gives"),
        ({"amounts": {}}, "give amounts by budget, or a percent"),
        ({"percent": 10}, "give amounts by budget, or a percent"),
        ({"amounts": {}, "percent": 101}, "percent is 1 to 100"),
        ({"amounts": {}, "percent": -1}, "percent is 1 to 100"),
        ({"amounts": {"Run": 0}}, "an amount is above zero"),
        ({"amounts": {"Run": -5}}, "an amount is above zero"),
        ({"amounts": {"Run": "5.00"}}, "give tokens as an integer"),
        ({"amounts": {"Ran": 5}}, "no budget 'Ran' that can be delegated"),
        ({"values": {}}, "the session has no hard budget of its own"),
        ({"child_agent": "nobody"}, "no agent 'nobody'"),
        ({"expires_in": timedelta(0)}, "lasts 1 second to 30 days"),
        ({"expires_in": timedelta(days=31)}, "lasts 1 second to 30 days"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(
    world: World, run: Budget, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DelegationError, match=words):
        delegate(organization_id=world.id, wish=wish(world, run, **changes), now=NOW)


def test_a_session_that_has_begun_is_no_child(world: World, run: Budget) -> None:
    make_balance(run, value="s2")
    with pytest.raises(DelegationError, match="has begun already"):
        give(world, run, "s2")
    give(world, run)
    with pytest.raises(DelegationError, match="has begun already"):
        give(world, run)


def test_a_tree_is_at_most_eight_deep(world: World, run: Budget) -> None:
    given = give(world, run, "s1/1", amounts={"Run": 100})
    for depth in range(2, 9):
        given = below(world, run, given, f"s1/{depth}", 100 - depth)
    with pytest.raises(DelegationError, match="at most 8 deep"):
        below(world, run, given, "s1/9", 1)


def test_a_crowd_of_children_is_bounded(world: World, run: Budget) -> None:
    give(world, run, amounts={"Run": 1})
    row = Delegation.objects.get()
    for number in range(MAX_CHILDREN - 1):
        child = make_balance(run, value=f"c{number}", limit_amount=1, cap_amount=1)
        Delegation.objects.create(
            handle=row.handle,
            organization_id=world.id,
            budget=run,
            parent=row.parent,
            child=child,
            parent_agent=world.agent.id,
            child_agent=world.agent.id,
            depth=1,
            amount=1,
            created_at=NOW,
            expires_at=NOW,
        )
    with pytest.raises(DelegationError, match="at most 1000 children"):
        give(world, run, "another", amounts={"Run": 1})


def test_only_its_own_agents_end_it(world: World, run: Budget) -> None:
    given = give(world, run, child_agent="loner")
    stranger = make_world("stranger")
    with pytest.raises(DelegationNotFoundError):
        end(stranger, given)
    with pytest.raises(DelegationNotFoundError):
        end(world, given, agent_id=stranger.agent.id)
    end(world, given, agent_id=world.loner.id)
    assert Delegation.objects.get().state == "closed"


def test_a_changed_limit_does_not_reach_children(world: World, run: Budget) -> None:
    give(world, run)
    change_budget(
        organization_id=world.id,
        budget_id=run.id,
        changes={"limit_amount": 5_000},
        actor=ACTOR,
        now=NOW,
    )
    assert (standing(run, "s1")[0], standing(run, "s1/c")[0]) == (5_000, 400)


steps = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 400), st.integers(0, 500)), min_size=1, max_size=12
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
def test_any_fan_out_keeps_the_sum(drawn: list[tuple[int, int, int]]) -> None:
    """Whatever is given, spent and ended: the root's limit bounds all, and the journal explains."""
    with transaction.atomic():
        world = make_world(f"tree-{Balance.objects.count()}")
        make_budget(world, name="Cap", unit="tokens", limit_amount=100_000)
        run = make_budget(world, name="Run", unit="tokens", limit_amount=1_000, per="session")
        trees = [give(world, run, "c0", amounts={"Run": 1})]
        for number, (parent, amount, used) in enumerate(drawn, start=1):
            above = trees[parent % len(trees)]
            try:
                trees.append(below(world, run, above, f"c{number}", amount))
            except (NotFreeError, DelegationError):
                continue
            mine = f"c{number}"
            spend(run, mine, min(used, standing(run, mine)[3]))
            if used % 3 == 0:
                end(world, trees[parent % len(trees)])
        for tree in trees:
            end(world, tree)
        limit, spent, given_away, free = standing(run, "s1")
        own = sum(t.amount for t in Transfer.objects.filter(organization_id=world.id, kind="usage"))
        assert (limit, given_away, spent, free) == (1_000, 0, own, 1_000 - own)
        assert verify(organization_id=world.id).holds
        transaction.set_rollback(True)
