"""No crowd commits more than a cap, however it asks (I1)."""

from collections.abc import Callable
from functools import partial

from django.db import IntegrityError, connection, transaction

from budgets.domain.budgets import change_budget
from budgets.domain.verify import verify
from budgets.models import Balance, Transfer
from tests.budgets.constraints.attack import sql
from tests.budgets.world import ACTOR, NOW, World, make_balance, make_budget, make_lease
from tests.races.crowd import at_once

CROWD = 64


def take(balance: Balance, amount: int) -> bool:
    """Ask, as a careful caller would: take only what fits."""
    return bool(
        sql(
            "UPDATE budgets_balance SET held_amount = held_amount + %s WHERE id = %s"
            " AND spent_amount + held_amount + suspense_amount + %s <= cap_amount",
            amount,
            balance.id,
            amount,
        )
    )


def grab(balance: Balance, amount: int) -> bool:
    """Take without looking, as a broken caller would. The database refuses."""
    try:
        with transaction.atomic():
            sql(
                "UPDATE budgets_balance SET held_amount = held_amount + %s WHERE id = %s",
                amount,
                balance.id,
            )
    except IntegrityError:
        return False
    return True


def test_a_careful_crowd_takes_exactly_the_cap(world: World) -> None:
    balance = make_balance(make_budget(world, limit_amount=100))
    taken = at_once([partial(take, balance, 10)] * CROWD)
    balance.refresh_from_db()
    assert (sum(taken), balance.held_amount) == (10, 100)


def test_a_blind_crowd_takes_no_more(world: World) -> None:
    balance = make_balance(make_budget(world, limit_amount=100))
    taken = at_once([partial(grab, balance, 7)] * CROWD)
    balance.refresh_from_db()
    assert (sum(taken), balance.held_amount) == (14, 98)


def test_a_falling_limit_and_a_taking_crowd_keep_the_law(world: World) -> None:
    """While limits fall, committed stays within the cap, and the cap only falls."""
    budget = make_budget(world, limit_amount=1_000)
    balance = make_balance(budget)
    limits = [800, 500, 200]

    def lower() -> bool:
        for limit in limits:
            change_budget(
                organization_id=world.id,
                budget_id=budget.id,
                changes={"limit_amount": limit},
                actor=ACTOR,
                now=NOW,
            )
        return False

    jobs: list[Callable[[], bool]] = [lower, *[partial(grab, balance, 50)] * 30]
    taken = at_once(jobs)
    balance.refresh_from_db()
    assert balance.held_amount == 50 * sum(taken)
    assert balance.limit_amount == 200
    assert balance.committed_amount <= balance.cap_amount <= 1_000
    assert balance.cap_amount == max(200, balance.cap_amount)
    assert Transfer.objects.filter(kind="limit").count() == 3
    assert not take(balance, 1) or balance.committed_amount < balance.cap_amount


def test_the_same_ask_is_leased_once(world: World) -> None:
    balance = make_balance(make_budget(world, limit_amount=10_000))
    first = make_lease(balance, amount=1)

    def lease_again() -> bool:
        try:
            with transaction.atomic():
                make_lease(
                    Balance.objects.get(id=balance.id),
                    amount=1,
                    spool=first.spool,
                    group_key=first.group_key,
                )
        except IntegrityError:
            return False
        return True

    assert sum(at_once([lease_again] * 16)) == 0
    assert verify().holds


def test_a_lease_is_closed_once(world: World) -> None:
    lease = make_lease(make_balance(make_budget(world)), amount=10)

    def close(state: str, used: int) -> bool:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE budgets_lease SET state = %s, used_amount = %s, returned_amount = %s,"
                    " closed_at = now() WHERE id = %s",
                    [state, used, 10 - used, lease.id],
                )
        except IntegrityError:
            return False
        return True

    assert sum(at_once([partial(close, "settled", used) for used in range(11)])) == 1
