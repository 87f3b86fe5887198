"""The hash chain over transfers: it covers what is settled, and tells whatever was touched."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from budgets.domain import seals
from budgets.domain.seals import check_chain, holds_digest, link, seal_journal
from budgets.models import Balance, JournalSeal, SealHorizon, Transfer
from tests.budgets.constraints.attack import sql
from tests.budgets.world import NOW, World, make_balance, make_budget, make_world

LATER = NOW + timedelta(seconds=10)


def write(balance: Balance, count: int = 1, **fields: Any) -> None:
    for _ in range(count):
        Transfer.objects.create(
            organization_id=balance.organization_id,
            balance=balance,
            kind="usage",
            amount=1,
            at=NOW,
            **fields,
        )


def seal(*, since: datetime = NOW) -> int:
    """As the task does it, again and again: a horizon is taken, then it counts."""
    return sum(seal_journal(now=since + timedelta(seconds=10 * turn)) for turn in range(3))


def touch(statement: str, *values: Any) -> None:
    """As somebody with the rights of the database's owner would."""
    sql("SET LOCAL session_replication_role = replica")
    sql(statement, *values)
    sql("SET LOCAL session_replication_role = origin")


@pytest.fixture
def balance(world: World) -> Balance:
    return make_balance(make_budget(world))


@pytest.fixture
def sealed(balance: Balance, monkeypatch: pytest.MonkeyPatch) -> Balance:
    """Ten transfers under four seals."""
    monkeypatch.setattr(seals, "ROWS_OF_A_SEAL", 3)
    write(balance, 10)
    assert seal() == 4
    return balance


def broken() -> list[tuple[int, str]]:
    return [(found.number, found.what) for found in check_chain().breaks]


def test_every_transfer_is_sealed_once(sealed: Balance) -> None:
    chain = check_chain()
    assert (chain.seals, chain.sealed, chain.unsealed, chain.breaks) == (4, 10, 0, [])
    rows = list(JournalSeal.objects.order_by("number"))
    assert [row.transfers for row in rows] == [3, 3, 3, 1]
    digest = b""
    for row in rows:
        digest = link(digest, bytes(row.content))
        assert bytes(row.digest) == digest
    (head,) = chain.heads
    assert (head.number, head.digest) == (4, digest.hex())
    assert seal() == 0


def test_each_organization_has_its_own_chain(sealed: Balance) -> None:
    other = make_balance(make_budget(make_world("other")))
    write(other, 2)
    write(sealed, 1)
    assert seal(since=LATER + timedelta(minutes=1)) == 2
    assert {head.number for head in check_chain().heads} == {1, 5}
    assert check_chain(organization_id=other.organization_id).sealed == 2


def test_a_horizon_counts_only_later(balance: Balance) -> None:
    seal_journal(now=NOW)
    write(balance)
    assert seal_journal(now=NOW + timedelta(seconds=1)) == 0
    horizon = SealHorizon.objects.get()
    assert (horizon.sealable, horizon.pending) == (0, 0)
    assert seal_journal(now=LATER) == 0
    assert SealHorizon.objects.get().pending > 0
    assert seal_journal(now=LATER + timedelta(seconds=1)) == 0
    assert seal_journal(now=LATER + timedelta(seconds=3)) == 1


def test_nothing_is_sealed_while_an_older_transaction_runs(balance: Balance) -> None:
    write(balance)
    seal_journal(now=NOW)
    seal_journal(now=NOW + timedelta(seconds=5))
    newest = SealHorizon.objects.get().pending_xid
    SealHorizon.objects.update(pending_xid=newest + 1_000_000)
    horizon = SealHorizon.objects.get()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        assert cursor.fetchone()[0] < horizon.pending_xid
    assert seal_journal(now=LATER) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("amount = 2", "a transfer is not what was sealed"),
        ("reason = 'x'", "a transfer is not what was sealed"),
        ("actor = 'somebody else'", "a transfer is not what was sealed"),
        ("at = at + interval '1 us'", "a transfer is not what was sealed"),
        ("kind = 'overrun'", "a transfer is not what was sealed"),
    ],
)
def test_a_changed_transfer_breaks_its_seal(sealed: Balance, change: str, expected: str) -> None:
    second = JournalSeal.objects.get(number=2)
    touch(f"UPDATE budgets_transfer SET {change} WHERE sequence = %s", second.first)
    assert broken() == [(2, expected)]


def test_a_removed_transfer_breaks_its_seal(sealed: Balance) -> None:
    touch(
        "DELETE FROM budgets_transfer WHERE sequence = %s", JournalSeal.objects.get(number=3).last
    )
    assert broken() == [(3, "2 transfers where 3 were sealed")]


def test_a_seal_cannot_be_taken_out_or_forged(sealed: Balance) -> None:
    touch("DELETE FROM budgets_journalseal WHERE number = 2")
    numbers = dict(broken())
    assert numbers[3] == "its digest does not follow from the seal before it"
    assert "stand between seals" in numbers[0]


def test_a_forged_seal_breaks_the_chain_behind_it(sealed: Balance) -> None:
    touch("UPDATE budgets_transfer SET amount = 9 WHERE sequence = %s", first_of(2))
    content = _content_of(2)
    digest = link(bytes(JournalSeal.objects.get(number=1).digest), content)
    touch(
        "UPDATE budgets_journalseal SET content = %s, digest = %s WHERE number = 2",
        content,
        digest,
    )
    assert broken() == [(3, "its digest does not follow from the seal before it")]


def first_of(number: int) -> int:
    return JournalSeal.objects.get(number=number).first


def _content_of(number: int) -> bytes:
    rows = {row[0]: bytes(row[2]) for row in seals._rows(seals._CONTENTS, {"organization": None})}
    return rows[JournalSeal.objects.get(number=number).id]


def test_a_head_kept_elsewhere_finds_a_chain_that_was_written_anew(sealed: Balance) -> None:
    (head,) = check_chain().heads
    assert holds_digest(head.digest)
    touch("UPDATE budgets_transfer SET amount = 9 WHERE sequence = %s", first_of(2))
    touch("DELETE FROM budgets_journalseal")
    assert seal(since=LATER + timedelta(days=1)) == 4
    assert broken() == []
    assert not holds_digest(head.digest)
    assert not holds_digest("no digest")
