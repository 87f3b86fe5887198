"""Books over the REST API, with the exact amounts that are out at each."""

from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from budgets.domain.budgets import BudgetSpec, create_budget
from budgets.domain.incarnation import current_incarnation
from budgets.models import Balance, Budget, Lease
from controlplane.identity.ids import new_id
from enforcement.models import Sidecar, Spool
from enforcement.rules.policy import ScopeKind, Unit
from tests.controlplane.world import Api, World
from tests.enforcement.api.conftest import make_book


def make_budget(world: World, unit: Unit = Unit.USD) -> Budget:
    return create_budget(
        spec=BudgetSpec(
            name=f"all {unit.value}",
            scope_kind=ScopeKind.ORGANIZATION,
            scope_id=world.id,
            unit=unit,
            limit_amount=10_000_000_000,
        ),
        **world.who,
    )


def make_lease(budget: Budget, book: Spool, *, state: str = "granted", **amounts: int) -> Lease:
    now = datetime.now(tz=UTC)
    balance, _ = Balance.objects.get_or_create(
        budget=budget,
        value="",
        window_start=datetime(1970, 1, 1, tzinfo=UTC),
        defaults={
            "organization_id": budget.organization_id,
            "hard": True,
            "limit_amount": budget.limit_amount,
            "cap_amount": budget.limit_amount,
            "updated_at": now,
        },
    )
    return Lease.objects.create(
        organization_id=budget.organization_id,
        balance=balance,
        spool=book.pk,
        epoch=1,
        incarnation=current_incarnation(now=now).pk,
        group_key=new_id(),
        group_hash="0" * 64,
        state=state,
        granted_at=now,
        expires_at=now + timedelta(seconds=10),
        closed_at=now if state == "settled" else None,
        **amounts,
    )


def test_a_book_shows_what_is_out_at_it(world: World, admin: Api, book: Spool) -> None:
    dollars, tokens = make_budget(world), make_budget(world, Unit.TOKENS)
    make_lease(
        dollars, book, amount=3_000_000_000, used_amount=500_000_000, open_amount=250_000_000
    )
    make_lease(dollars, book, amount=1_000_000_000, returned_amount=1, state="suspended")
    make_lease(dollars, book, amount=7, used_amount=7, state="settled")
    make_lease(tokens, book, amount=900)
    body = admin.call("GET", f"spools/{book.pk}").json()
    assert (body["book"], body["sidecar_name"], body["epoch"]) == ("edge-1/0", "edge-1", 1)
    assert body["exposure"] == [
        {
            "budget": str(tokens.pk),
            "budget_name": "all tokens",
            "unit": "tokens",
            "leased": 900,
            "open": 0,
            "suspense": 0,
        },
        {
            "budget": str(dollars.pk),
            "budget_name": "all usd",
            "unit": "usd",
            "leased": "2.50",
            "open": "0.25",
            "suspense": "0.999999999",
        },
    ]


def test_a_book_with_nothing_out_shows_nothing(admin: Api, book: Spool) -> None:
    (row,) = admin.call("GET", "spools").json()["results"]
    assert (row["id"], row["exposure"]) == (str(book.pk), [])


def test_anothers_books_are_unknown(foreigner: Api, book: Spool) -> None:
    assert foreigner.call("GET", "spools").json()["results"] == []
    assert foreigner.call("GET", f"spools/{book.pk}").status_code == 404


def test_books_are_read_only(admin: Api, book: Spool) -> None:
    assert admin.call("DELETE", f"spools/{book.pk}").status_code == 405
    assert admin.call("POST", "spools", {}).status_code == 405


@pytest.mark.parametrize("books", [1, 3])
def test_the_list_of_books_takes_the_same_queries_at_any_length(
    world: World,
    viewer: Api,
    sidecar: Sidecar,
    books: int,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    budget = make_budget(world)
    for number in range(books):
        make_lease(budget, make_book(sidecar, f"b{number}"), amount=5)
    viewer.call("GET", "spools")
    with django_assert_num_queries(4):  # token, membership, books, their leases
        rows = viewer.call("GET", "spools").json()["results"]
    assert [row["exposure"][0]["leased"] for row in rows] == ["0.000000005"] * books
