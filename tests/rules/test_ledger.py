"""The ledger's rules: grants, watermarks, suspense, and the queue of groups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from enforcement.rules.grantqueue import Answers, GrantQueue, cause_of
from enforcement.rules.ledger import (
    Ask,
    Balance,
    Lease,
    LeaseState,
    Ledger,
    TransferKind,
    committed_over_cap,
)
from enforcement.rules.rolling import new_ring
from enforcement.rules.spools import Spool, greet, owes_word, standing
from enforcement.rules.wire import Attribution, DenialCause, Group, GroupItem, Header, LeaseReport

TTL_MS, GRACE_MS = 10_000, 300
HOUR_MS = 3_600_000


def make_ledger(**limits: int) -> Ledger:
    counter = iter(range(1, 10_000))
    ledger = Ledger(
        new_id=lambda: f"l{next(counter)}",
        sign=lambda lease, _balance, amount: f"mac:{lease}:{amount}",
        lease_ttl_ms=TTL_MS,
        grace_ms=GRACE_MS,
    )
    for name, limit in limits.items():
        ledger.balances[name] = Balance(name, f"budget-{name}", "", 0, limit, limit)
    return ledger


def ask(key: str, *items: tuple[str, int, int, int], at_ms: int = 0, spool: str = "s1") -> Ask:
    pairs = [(b, GroupItem(f"budget-{b}", "", floor, need, want)) for b, floor, need, want in items]
    group = Group(key, Attribution(agent="a"), [item for _, item in pairs], wait_ms=150)
    return Ask(group, spool, 1, "i", pairs, at_ms)


def pump(ledger: Ledger, *asks: Ask, now_ms: int = 0, queue: GrantQueue | None = None) -> Answers:
    queue = queue or GrantQueue()
    for one in asks:
        queue.submit(one)
    return queue.pump(ledger, now_ms=now_ms)


def counters(balance: Balance) -> tuple[int, int, int, int]:
    return balance.spent, balance.held, balance.suspense, balance.overrun


def granted(ledger: Ledger, amount: int = 100) -> Lease:
    return pump(ledger, ask("g", ("a", 1, amount, amount))).granted["g"][0]


def report(ledger: Ledger, lease: Lease, used: int, returned: int, **more: object) -> None:
    said = LeaseReport(lease.id, used, returned, **more)  # type: ignore[arg-type]
    assert ledger.report(said, spool="s1", now_ms=0) is not None


def test_a_group_is_granted_whole_or_not_at_all() -> None:
    ledger = make_ledger(a=1_000, b=10)
    answers = pump(ledger, ask("g", ("a", 5, 50, 50), ("b", 11, 11, 11)))
    assert (answers.granted, ledger.new_leases, ledger.transfers) == ({}, [], [])
    assert [(d.budget, d.cause) for d in answers.denied] == [("budget-b", DenialCause.LIMIT)]


def test_a_lease_is_the_want_up_to_a_share_of_what_is_free() -> None:
    ledger = make_ledger(a=1_000)
    queue = GrantQueue()
    sizes = []
    for number, spool in enumerate(["s1", "s2", "s1"]):
        one = ask(f"g{number}", ("a", 1, 10, 10_000), spool=spool)
        sizes.append(pump(ledger, one, queue=queue).granted[f"g{number}"][0].amount)
    assert sizes == [500, 125, 93]


def test_a_tight_balance_gives_exactly_what_is_needed() -> None:
    ledger = make_ledger(a=1_000)
    ledger.balances["a"].spent = 960
    assert pump(ledger, ask("g", ("a", 1, 30, 5_000))).granted["g"][0].amount == 30


@pytest.mark.parametrize("early", ["spare", "ahead"])
@pytest.mark.parametrize(("spent", "lends"), [(960, False), (0, True)])
def test_what_is_scarce_is_not_given_where_nobody_waits(
    early: str, spent: int, lends: bool
) -> None:
    ledger = make_ledger(a=1_000)
    balance = ledger.balances["a"]
    one = ask("g", ("a", 1, 30, 30))
    one.group = replace(one.group, wait_ms=0, **{early: True})
    assert pump(ledger, one).granted["g"][0].amount == 30
    balance.spent, balance.lends = spent, lends
    again = ask("h", ("a", 1, 1, 1))
    again.group = replace(again.group, wait_ms=0, **{early: True})
    answers = pump(ledger, again)
    assert (answers.granted, len(answers.denied), answers.recalls) == ({}, 1, [])


def test_reports_are_watermarks() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    for used, returned in [(30, 0), (30, 0), (10, 0), (30, 20), (40, 20)]:
        report(ledger, lease, used, returned)
    assert counters(ledger.balances["a"]) == (40, 40, 0, 0)
    kinds = [(t.kind, t.amount) for t in ledger.transfers]
    assert kinds == [
        (TransferKind.GRANT, 100),
        (TransferKind.SETTLE, 30),
        (TransferKind.RELEASE, 20),
        (TransferKind.SETTLE, 10),
    ]


@given(st.permutations([(0, 0), (10, 0), (40, 0), (40, 30), (70, 30)]), st.integers(0, 4))
def test_any_order_with_duplicates_ends_at_the_highest_watermarks(steps, again: int) -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    for used, returned in [*steps, steps[again], (70, 30)]:
        report(ledger, lease, used, returned)
    report(ledger, lease, 70, 30, final=True)
    assert counters(ledger.balances["a"]) == (70, 0, 0, 0)
    assert lease.state is LeaseState.SETTLED


def test_a_final_is_final() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    report(ledger, lease, 25, 75, final=True)
    report(ledger, lease, 90, 0)
    assert counters(ledger.balances["a"]) == (25, 0, 0, 0)


def test_nobody_reports_for_a_foreign_spool() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    assert ledger.report(LeaseReport(lease.id, 0, 100), spool="s2", now_ms=0) is None
    assert counters(ledger.balances["a"]) == (0, 100, 0, 0)


def test_an_expired_lease_counts_in_suspense_until_its_spool_speaks() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    report(ledger, lease, 10, 0)
    assert not ledger.expire(lease.id, now_ms=TTL_MS + GRACE_MS - 1)
    assert ledger.expire(lease.id, now_ms=TTL_MS + GRACE_MS)
    assert counters(ledger.balances["a"]) == (10, 0, 90, 0)
    report(ledger, lease, 60, 40, final=True)
    assert counters(ledger.balances["a"]) == (60, 0, 0, 0)
    assert ledger.transfers[-2].kind is TransferKind.LATE_SETTLE


def test_a_renewal_lasts_from_the_sync_but_never_past_the_window() -> None:
    ledger = make_ledger(a=1_000)
    ledger.balances["a"].window_ends_at_ms = 12_000
    lease = granted(ledger)
    said = LeaseReport(lease.id, 0, 0, renew=True)
    first = ledger.report(said, spool="s1", now_ms=5_000)
    assert first is not None
    assert (first.ttl_ms, lease.expires_at_ms) == (7_000, 12_000)
    late = ledger.report(said, spool="s1", now_ms=12_000)
    assert late is not None
    assert late.ttl_ms == 0
    recalled = ledger.report(said, spool="s1", now_ms=6_000, recalled=True)
    assert recalled is not None
    assert recalled.ttl_ms == 0


def test_an_overrun_is_recorded_outside_the_cap() -> None:
    ledger = make_ledger(a=100)
    lease = granted(ledger, 60)
    report(ledger, lease, 60, 0, overrun=50, final=True)
    report(ledger, lease, 60, 0, overrun=50, final=True)
    balance = ledger.balances["a"]
    assert (counters(balance), balance.free) == ((60, 0, 0, 50), -10)
    assert committed_over_cap([balance]) == []


def test_a_lowered_limit_leaves_a_cap_that_only_falls() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger, 400)
    balance = ledger.balances["a"]
    balance.limit, balance.cap = 100, 400
    report(ledger, lease, 50, 200)
    assert balance.cap == 200
    report(ledger, lease, 50, 350, final=True)
    assert (balance.cap, balance.free) == (100, 50)


def test_what_only_others_hold_is_worth_waiting_and_recalling_for() -> None:
    ledger = make_ledger(a=100)
    lease = granted(ledger, 90)
    queue = GrantQueue()
    assert pump(ledger, ask("g2", ("a", 20, 20, 20)), queue=queue) == Answers(recalls=["a"])
    assert pump(ledger, queue=queue, now_ms=50) == Answers()
    report(ledger, lease, 10, 80, final=True)
    assert list(pump(ledger, queue=queue, now_ms=60).granted) == ["g2"]


def test_a_group_that_waited_in_vain_is_told_why() -> None:
    ledger = make_ledger(a=100)
    granted(ledger, 90)
    queue = GrantQueue()
    pump(ledger, ask("g2", ("a", 20, 20, 20)), queue=queue)
    denial = pump(ledger, queue=queue, now_ms=150).denied[0]
    assert (denial.cause, denial.free, denial.retry_after_ms) == (DenialCause.HELD, 10, 1_000)
    assert queue.waiting == {}


def test_a_clock_that_steps_back_prolongs_no_wait_and_no_recall() -> None:
    ledger = make_ledger(a=100)
    pump(ledger, ask("g1", ("a", 90, 90, 90), at_ms=HOUR_MS), now_ms=HOUR_MS)
    queue = GrantQueue()
    waiting = ask("g2", ("a", 20, 20, 20), at_ms=HOUR_MS)
    assert pump(ledger, waiting, queue=queue, now_ms=HOUR_MS).recalls == ["a"]
    assert queue.is_recalled("a", now_ms=HOUR_MS)
    assert not queue.is_recalled("a", now_ms=0)
    assert pump(ledger, queue=queue, now_ms=0).recalls == ["a"]
    assert queue.is_recalled("a", now_ms=0)
    assert pump(ledger, queue=queue, now_ms=149).denied == []
    assert [denial.group for denial in pump(ledger, queue=queue, now_ms=150).denied] == ["g2"]


def test_books_from_before_a_step_back_share_no_balance() -> None:
    ledger = make_ledger(a=1_000)
    queue = GrantQueue()
    sizes = [
        pump(
            ledger,
            ask(spool, ("a", 1, 1, 900), at_ms=at_ms, spool=spool),
            queue=queue,
            now_ms=at_ms,
        )
        .granted[spool][0]
        .amount
        for spool, at_ms in [("s1", HOUR_MS), ("s2", 0)]
    ]
    fresh = make_ledger(a=1_000 - sizes[0])
    alone = pump(fresh, ask("s2", ("a", 1, 1, 900), spool="s2")).granted["s2"][0].amount
    assert sizes[1] == alone


def test_a_younger_group_may_not_take_what_an_older_one_waits_for() -> None:
    ledger = make_ledger(a=100)
    granted(ledger, 70)
    queue = GrantQueue()
    pump(ledger, ask("old", ("a", 40, 40, 40)), queue=queue)
    answers = pump(ledger, ask("young", ("a", 20, 20, 20), at_ms=1), queue=queue, now_ms=1)
    assert (answers.granted, len(queue.waiting)) == ({}, 2)


def test_after_half_its_patience_a_group_takes_its_floor() -> None:
    ledger = make_ledger(a=100)
    ledger.balances["a"].spent = 50
    queue = GrantQueue()
    assert pump(ledger, ask("g", ("a", 10, 60, 60)), queue=queue).granted == {}
    assert pump(ledger, queue=queue, now_ms=75).granted["g"][0].amount == 50


@pytest.mark.parametrize(
    ("spent", "held", "suspense", "cause"),
    [
        (95, 0, 0, DenialCause.LIMIT),
        (0, 95, 0, DenialCause.HELD),
        (50, 0, 45, DenialCause.SUSPENSE),
    ],
)
def test_a_refusal_names_what_stands_in_the_way(spent, held, suspense, cause) -> None:
    balance = Balance("a", "b", "", 0, 100, 100, None, spent, held, suspense)
    assert cause_of(balance, 10) is cause


def test_the_same_group_queues_once() -> None:
    queue = GrantQueue()
    ledger = make_ledger(a=1_000)
    one = ask("g", ("a", 1, 10, 10))
    queue.submit(one)
    queue.submit(one)
    assert len(queue.pump(ledger, now_ms=0).granted["g"]) == 1
    assert len(ledger.new_leases) == 1


def test_another_boot_fences_the_older_life_of_a_spool() -> None:
    spool = Spool("s1")
    assert greet(spool, boot="one", incarnation="i") == 1
    assert greet(spool, boot="one", incarnation="i") == 1
    assert greet(spool, boot="two", incarnation="i") == 2
    old, new = Header("o", "s1", 1, "i"), Header("o", "s1", 2, "i")
    assert [standing(spool, h, incarnation="i") for h in (old, new)] == ["fenced", "ok"]
    assert standing(spool, new, incarnation="j") == "rehello"
    assert standing(None, new, incarnation="i") == "rehello"


def test_a_spool_owes_word_for_lost_and_suspended_leases_only() -> None:
    spool = Spool("s1", epoch=2)
    cases = {
        (1, LeaseState.GRANTED, "s1"): True,
        (2, LeaseState.GRANTED, "s1"): False,
        (2, LeaseState.SUSPENDED, "s1"): True,
        (1, LeaseState.SETTLED, "s1"): False,
        (1, LeaseState.SUSPENDED, "s2"): False,
    }
    for (epoch, lease_state, owner), expected in cases.items():
        lease = Lease("l", "a", owner, 10, 0, epoch=epoch, state=lease_state)
        assert owes_word(lease, spool) is expected


def lending(limit: int) -> Ledger:
    ledger = make_ledger(a=limit)
    ledger.balances["a"].lends = True
    return ledger


def test_permits_come_home_unspent() -> None:
    ledger = lending(100)
    lease = granted(ledger, 10)
    report(ledger, lease, 0, 4, open=6)
    assert counters(ledger.balances["a"]) == (0, 6, 0, 0)
    report(ledger, lease, 0, 10, final=True)
    assert counters(ledger.balances["a"]) == (0, 0, 0, 0)
    assert lease.state is LeaseState.SETTLED


def test_permits_that_a_dead_book_had_out_wait_in_suspense() -> None:
    ledger = lending(100)
    lease = granted(ledger, 10)
    said = LeaseReport(lease.id, 3, 7, final=True)
    for _ in range(2):
        ack = ledger.report(said, spool="s1", now_ms=0)
        assert ack is not None
        assert (ack.used, ack.returned, ack.final) == (3, 7, True)
    assert counters(ledger.balances["a"]) == (0, 0, 3, 0)
    assert (lease.state, lease.used, lease.returned) == (LeaseState.SUSPENDED, 0, 7)
    assert cause_of(ledger.balances["a"], 98) is DenialCause.HELD


def test_an_expired_lease_of_permits_comes_back_when_its_book_speaks() -> None:
    ledger = lending(100)
    lease = granted(ledger, 10)
    assert ledger.expire(lease.id, now_ms=TTL_MS + GRACE_MS)
    report(ledger, lease, 0, 10, final=True)
    assert counters(ledger.balances["a"]) == (0, 0, 0, 0)


def test_few_permits_go_one_by_one() -> None:
    ledger = lending(7)
    queue = GrantQueue()
    sizes = [
        pump(ledger, ask(spool, ("a", 1, 1, 50), spool=spool), queue=queue).granted[spool][0].amount
        for spool in ("s1", "s2")
    ]
    assert sizes == [3, 1]


@given(
    st.integers(1, 20),
    st.lists(
        st.tuples(st.integers(0, 25), st.integers(0, 25), st.booleans(), st.booleans()), max_size=8
    ),
)
def test_permits_are_never_spent_and_never_more_than_lent(
    amount: int, said: list[tuple[int, int, bool, bool]]
) -> None:
    ledger = lending(50)
    lease = granted(ledger, amount)
    balance = ledger.balances["a"]
    for used, returned, final, expires in said:
        if expires:
            ledger.expire(lease.id, now_ms=TTL_MS + GRACE_MS)
        report(ledger, lease, used, returned, final=final)
        assert balance.spent == 0
        assert balance.held + balance.suspense == lease.rest >= 0


def test_a_deadline_from_before_a_step_back_of_the_clock_is_not_waited_for() -> None:
    ledger = make_ledger(a=1_000)
    lease = pump(ledger, ask("g", ("a", 1, 100, 100)), now_ms=3_600_000).granted["g"][0]
    assert not ledger.expire(lease.id, now_ms=3_600_000 - GRACE_MS)
    assert ledger.expire(lease.id, now_ms=3_600_000 - GRACE_MS - 1)
    assert counters(ledger.balances["a"]) == (0, 0, 100, 0)
    report(ledger, lease, 40, 60, final=True)
    assert counters(ledger.balances["a"]) == (40, 0, 0, 0)


# ---------------------------------------------------------------------------- patience


def renewed(ledger: Ledger, lease: Lease, *, open_: int, now_ms: int, recalled: bool = True) -> int:
    said = LeaseReport(lease.id, 0, 0, open=open_, renew=True)
    ack = ledger.report(said, spool="s1", now_ms=now_ms, recalled=recalled)
    assert ack is not None
    return ack.ttl_ms


def test_a_recalled_lease_whose_requests_run_is_held_and_takes_no_new_ones() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    assert renewed(ledger, lease, open_=60, now_ms=9_000) == 0
    assert lease.expires_at_ms == 9_000 + TTL_MS
    assert not ledger.expire(lease.id, now_ms=TTL_MS + GRACE_MS)
    assert counters(ledger.balances["a"]) == (0, 100, 0, 0)
    assert ledger.expire(lease.id, now_ms=9_000 + TTL_MS + GRACE_MS)  # then it fell silent


def test_one_without_running_requests_is_not_waited_for() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    assert renewed(ledger, lease, open_=0, now_ms=9_000) == 0
    assert ledger.expire(lease.id, now_ms=TTL_MS + GRACE_MS)


def test_patience_ends_with_the_window() -> None:
    ledger = make_ledger(a=1_000)
    ledger.balances["a"].window_ends_at_ms = 12_000
    lease = granted(ledger)
    renewed(ledger, lease, open_=60, now_ms=9_000)
    assert lease.expires_at_ms == 12_000
    renewed(ledger, lease, open_=60, now_ms=12_100)
    assert lease.expires_at_ms == 12_000


def test_a_lease_in_a_rolling_window_stays_in_its_part() -> None:
    ledger = make_ledger(a=1_000)
    ledger.balances["a"].ring = new_ring(length_s=60, parts=2, now_ms=0)
    lease = granted(ledger)
    renewed(ledger, lease, open_=60, now_ms=25_000)
    assert lease.expires_at_ms == 30_000


def test_what_is_in_suspense_stays_there_until_it_is_told() -> None:
    ledger = make_ledger(a=1_000)
    lease = granted(ledger)
    ledger.expire(lease.id, now_ms=TTL_MS + GRACE_MS)
    assert renewed(ledger, lease, open_=60, now_ms=TTL_MS + GRACE_MS) == 0
    assert lease.state is LeaseState.SUSPENDED
