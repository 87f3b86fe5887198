"""The chain only grows, and every link of it makes sense."""

from datetime import timedelta
from typing import Any

import pytest

from budgets.domain.seals import seal_journal
from budgets.models import JournalSeal, SealHorizon, Transfer
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World, make_balance, make_budget


@pytest.fixture
def sealed(world: World) -> JournalSeal:
    """One transfer under one seal."""
    Transfer.objects.create(
        organization_id=world.id,
        balance=make_balance(make_budget(world)),
        kind="usage",
        amount=1,
        at=NOW,
    )
    for turn in range(3):
        seal_journal(now=NOW + timedelta(seconds=10 * turn))
    return JournalSeal.objects.get()


def test_seals_are_only_appended(sealed: JournalSeal) -> None:
    with refused_by("seal_append_only"):
        sql("UPDATE budgets_journalseal SET transfers = 1 WHERE id = %s", sealed.id)
    with refused_by("seal_append_only"):
        sql("DELETE FROM budgets_journalseal")


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"number": 0}, "seal_covers_rows"),
        ({"first": 90, "last": 89}, "seal_covers_rows"),
        ({"transfers": 0}, "seal_covers_rows"),
        ({"transfers": 5}, "seal_covers_rows"),
        ({"digest": b"short"}, "seal_digests_are_sha256"),
        ({"content": b""}, "seal_digests_are_sha256"),
        ({"number": 1}, "seal_one_number"),
        ({"first": None}, "seal_one_begin"),
    ],
)
def test_a_seal_that_cannot_be(
    sealed: JournalSeal, change: dict[str, Any], constraint: str
) -> None:
    values: dict[str, Any] = {
        "organization_id": sealed.organization_id,
        "number": 9,
        "first": 90,
        "last": 91,
        "transfers": 1,
        "content": b"c" * 32,
        "digest": b"d" * 32,
        "sealed_at": NOW,
    } | change
    if values["first"] is None:
        values |= {"first": sealed.first, "last": sealed.first}
    with refused_by(constraint):
        JournalSeal.objects.create(**values)


@pytest.mark.usefixtures("sealed")
def test_the_horizon_is_one_row_in_order() -> None:
    with refused_by("horizon_one_row"):
        SealHorizon.objects.create(id=2, pending_at=NOW)
    with refused_by("horizon_in_order"):
        sql("UPDATE budgets_sealhorizon SET pending = sealable - 1")
