"""The book's side of the protocol: asks, answers, renewals, orders, and the policy lease."""

import pytest

from enforcement.rules import records
from enforcement.rules.book import MAX_GROUPS, Book, Demand, Effects
from enforcement.rules.lots import NS_PER_MS, Hold, Need
from enforcement.rules.policy import OrderKind, PolicySnapshot, ScopeKind
from enforcement.rules.wire import (
    Attribution,
    Denial,
    DenialCause,
    Grant,
    Group,
    GroupItem,
    Header,
    InventoryItem,
    LeaseAck,
    Order,
    OrderAck,
    Recall,
    Sync,
    SyncAnswer,
    Welcome,
)

KEY = ("b", "")
MS = NS_PER_MS
AGENT = Attribution(agent="a")


def welcome(epoch: int = 1, incarnation: str = "i", **more: object) -> Welcome:
    policy = PolicySnapshot(organization="o", revision=3)
    return Welcome("o", incarnation, epoch, policy, 30_000, 10_000, 0, **more)  # type: ignore[arg-type]


def welcomed_book() -> Book:
    book = Book(organization="o", spool="s")
    book.on_welcome(welcome(), sent_ns=0, now_ns=0, kernel_boot_id="k")
    return book


def answer(book: Book, sync: Sync, now_ms: int = 0, **content: object) -> Effects:
    content.setdefault("incarnation", book.incarnation)
    said = SyncAnswer(**content)  # type: ignore[arg-type]
    return book.on_answer(said, sync, sent_ns=0, now_ns=now_ms * MS, now_ms=now_ms)


def ask(book: Book, key: str = "g", now_ms: int = 0) -> Sync:
    book.ask(key, AGENT, [GroupItem("b", "", 1, 10, 40)])
    return book.make_sync(now_ns=now_ms * MS)


def grant(lease: str = "l", group: str = "g", amount: int = 40) -> Grant:
    return Grant(lease, group, "b", "", 0, amount, 10_000, "mac")


def funded_book() -> Book:
    book = welcomed_book()
    answer(book, ask(book), grants=[grant()])
    book.lots.mark_durable(["l"])
    return book


def test_a_group_is_repeated_under_its_key_until_it_is_answered() -> None:
    book = welcomed_book()
    first = ask(book)
    assert [group.key for group in first.groups] == ["g"]
    assert book.make_sync(now_ns=0).groups == []
    book.on_sync_failed(first.header.sequence)
    again = book.make_sync(now_ns=5 * MS)
    assert again.groups == first.groups
    assert answer(book, again, grants=[grant()]).granted == {"g": ["l"]}
    assert book.make_sync(now_ns=6 * MS).groups == []


def test_a_lease_lives_from_the_first_ask_however_late_the_answer() -> None:
    book = welcomed_book()
    lost = ask(book, now_ms=100)
    book.on_sync_failed(lost.header.sequence)
    again = book.make_sync(now_ns=5_000 * MS)
    answer(book, again, now_ms=6_000, grants=[grant()])
    assert book.lots.by_lease["l"].deadline_ns == (100 + 9_800) * MS


def test_a_grant_that_nobody_waits_for_goes_straight_home() -> None:
    book = welcomed_book()
    sync = ask(book)
    book.abandon("g")
    assert answer(book, sync, grants=[grant()]).granted == {}
    lot = book.lots.by_lease["l"]
    assert (lot.returned, lot.final) == (40, True)
    assert book.make_sync(now_ns=0).reports[0].final


def test_a_denial_reaches_the_request_that_waits_and_no_other() -> None:
    book = welcomed_book()
    sync = ask(book)
    denials = [Denial(group, "b", "", DenialCause.LIMIT) for group in ("g", "other")]
    assert list(answer(book, sync, denials=denials).denied) == ["g"]


def test_totals_are_said_until_the_ledger_confirms_them() -> None:
    book = funded_book()
    hold = book.lots.place([Need(*KEY, 10)], now_ns=0)
    assert isinstance(hold, Hold)
    book.lots.settle(hold, {KEY: 7}, now_ns=0)
    sync = book.make_sync(now_ns=0)
    assert [(r.lease, r.used, r.returned, r.open) for r in sync.reports] == [("l", 7, 0, 0)]
    assert book.make_sync(now_ns=0).reports == sync.reports
    answer(book, sync, acks=[LeaseAck("l", 7, 0)])
    assert book.make_sync(now_ns=0).reports == []
    assert not book.needs_sync(now_ns=0)


def test_a_final_is_said_until_it_is_acknowledged_as_final() -> None:
    book = funded_book()
    book.lots.close()
    sync = book.make_sync(now_ns=0)
    answer(book, sync, acks=[LeaseAck("l", 0, 40)])
    assert not book.lots.by_lease["l"].acked
    answer(book, book.make_sync(now_ns=0), acks=[LeaseAck("l", 0, 40, final=True)])
    assert book.lots.by_lease["l"].acked
    assert book.make_sync(now_ns=0).reports == []


def test_a_lot_in_use_is_renewed_after_half_its_life() -> None:
    book = funded_book()
    answer(book, book.make_sync(now_ns=0), acks=[LeaseAck("l", 0, 0)])
    assert book.make_sync(now_ns=4_800 * MS).reports == []
    sync = book.make_sync(now_ns=5_000 * MS)
    assert [report.renew for report in sync.reports] == [True]
    acks = [LeaseAck("l", 0, 0, ttl_ms=10_000)]
    book.on_answer(
        SyncAnswer(incarnation="i", acks=acks),
        sync,
        sent_ns=5_000 * MS,
        now_ns=5_500 * MS,
        now_ms=0,
    )
    assert book.lots.by_lease["l"].deadline_ns == 14_800 * MS


def test_a_recall_sends_idle_lots_home_and_stops_renewals() -> None:
    book = funded_book()
    hold = book.lots.place([Need(*KEY, 10)], now_ns=0)
    assert isinstance(hold, Hold)
    answer(book, book.make_sync(now_ns=0), recalls=[Recall(*KEY)])
    report = book.make_sync(now_ns=0).reports[0]
    assert (report.returned, report.open, report.renew) == (30, 10, False)


def test_orders_are_taken_once_and_acknowledged_until_heard() -> None:
    book = welcomed_book()
    order = Order("o1", 4, OrderKind.KILL, ScopeKind.AGENT, "a")
    sync = book.make_sync(now_ns=0)
    assert answer(book, sync, orders=[order], order_cursor=4).orders == [order]
    assert answer(book, sync, orders=[order], order_cursor=4).orders == []
    book.acknowledge_order(OrderAck("o1", 2))
    said = book.make_sync(now_ns=0)
    assert (said.acknowledgements, said.header.order_cursor) == ([OrderAck("o1", 2)], 4)
    book.on_sync_failed(said.header.sequence)
    assert book.make_sync(now_ns=0).acknowledgements == [OrderAck("o1", 2)]


def test_the_policy_is_leased_from_the_sending_of_the_sync() -> None:
    book = welcomed_book()
    assert book.policy_is_fresh(now_ns=29_400 * MS - 1)
    assert not book.policy_is_fresh(now_ns=29_400 * MS)
    sync = book.make_sync(now_ns=0)
    said = SyncAnswer(incarnation="i", policy_revision=3, policy_ttl_ms=30_000)
    book.on_answer(said, sync, sent_ns=10_000 * MS, now_ns=11_000 * MS, now_ms=0)
    assert book.policy_deadline_ns == 39_400 * MS


def test_a_newer_policy_is_needed_before_the_lease_goes_on() -> None:
    book = welcomed_book()
    sync = book.make_sync(now_ns=0)
    newer = SyncAnswer(incarnation="i", policy_revision=4, policy_ttl_ms=30_000)
    book.on_answer(newer, sync, sent_ns=10_000 * MS, now_ns=10_000 * MS, now_ms=0)
    assert book.policy_deadline_ns == 29_400 * MS
    policy = PolicySnapshot("o", 4)
    effects = answer(book, sync, policy=policy, policy_revision=4, policy_ttl_ms=60_000)
    assert (effects.policy, book.policy_revision, book.policy_deadline_ns) == (
        policy,
        4,
        58_800 * MS,
    )


def test_a_fenced_book_serves_nobody() -> None:
    book = welcomed_book()
    assert answer(book, book.make_sync(now_ns=0), status="fenced").fenced
    assert not book.policy_is_fresh(now_ns=0)


def test_an_answer_to_an_older_epoch_fences_nobody() -> None:
    book = welcomed_book()
    stale = Sync(header=Header("o", "s", 0, "i"))
    assert not answer(book, stale, status="fenced").fenced


def test_another_incarnation_needs_a_hello_and_kills_the_lots() -> None:
    book = funded_book()
    effects = answer(book, book.make_sync(now_ns=0), status="rehello", incarnation="j")
    assert effects.rehello
    assert not book.policy_is_fresh(now_ns=0)
    book.on_welcome(welcome(2, "j"), sent_ns=0, now_ns=0, kernel_boot_id="k")
    assert book.lots.free_of(KEY, now_ns=0) == 0
    assert book.policy_is_fresh(now_ns=0)


def test_a_lease_that_the_inventory_lacks_is_handed_back_unused() -> None:
    book = Book(organization="o", spool="s")
    item = InventoryItem("lost", "b", "", 0, 25, 0, 0, incarnation="i", mac="mac")
    book.on_welcome(welcome(unknown=[item]), sent_ns=0, now_ns=0, kernel_boot_id="k")
    report = book.make_sync(now_ns=0).reports[0]
    assert (report.lease, report.used, report.returned, report.final) == ("lost", 0, 25, True)


def test_a_final_that_the_ledger_lost_is_said_again() -> None:
    book = funded_book()
    book.lots.close()
    answer(book, book.make_sync(now_ns=0), acks=[LeaseAck("l", 0, 40, final=True)])
    item = InventoryItem("l", "b", "", 0, 40, 0, 0)
    answer(book, book.make_sync(now_ns=0), unsettled=[item])
    assert [(r.lease, r.final) for r in book.make_sync(now_ns=0).reports] == [("l", True)]


def test_the_next_lease_is_sized_by_rate_and_by_worst_case() -> None:
    book = welcomed_book()
    need = Need(*KEY, 10)
    assert book.item(need, floor=4) == GroupItem("b", "", 4, 10, 10)
    book.note_demand([need], now_ns=0)
    assert book.item(need, floor=40) == GroupItem("b", "", 10, 10, 40)
    for tick in range(30):
        book.note_demand([need], now_ns=tick * 100 * MS)
    assert book.item(need, floor=4).want == 310


@pytest.mark.parametrize(
    ("gap_ms", "recent", "previous"), [(4_999, 20, 0), (5_000, 10, 10), (10_000, 10, 0)]
)
def test_demand_is_forgotten_after_its_window(gap_ms: int, recent: int, previous: int) -> None:
    demand = Demand(since_ns=0)
    demand.note(10, now_ns=0)
    demand.note(10, now_ns=gap_ms * MS)
    assert (demand.recent, demand.previous) == (recent, previous)


def test_the_journal_names_each_life_and_each_grant() -> None:
    book = funded_book()
    assert book.lots.journal_out == [
        records.Booted(1, "i", "k"),
        records.Granted("l", "b", "", 0, 40, "i", "mac"),
    ]


# ---------------------------------------------------------------------------- refills


def drawing_book(amount: int = 30, now_ms: int = 0) -> Book:
    """A book with a lot of 40, of which a call holds an amount."""
    book = welcomed_book()
    need = Need("b", "", amount)
    book.note_demand([need], now_ns=now_ms * MS)
    answer(book, ask(book), grants=[grant()])
    book.lots.mark_durable(["l"])
    assert isinstance(book.lots.place([need], now_ns=now_ms * MS), Hold)
    return book


def refills(book: Book, now_ms: int = 0) -> list[Group]:
    book.refill(new_id=lambda: f"r{now_ms}", now_ns=now_ms * MS)
    return [pending.group for pending in book.pending.values()]


def test_what_runs_low_is_asked_for_once_before_it_is_short() -> None:
    book = drawing_book()
    (group,) = refills(book)
    assert (group.spare, group.wait_ms, group.attribution) == (True, 0, AGENT)
    assert group.items == [GroupItem("b", "", 30, 30, 120)]
    book.note_demand([Need("b", "", 30)], now_ns=MS)
    assert refills(book, now_ms=1) == [group]  # it is under way


def test_where_enough_is_left_nothing_is_asked_for() -> None:
    assert refills(drawing_book(amount=5)) == []


def test_what_was_not_drawn_since_is_not_looked_at() -> None:
    book = drawing_book(amount=5)
    refills(book)
    book.lots.by_lease["l"].used = 40
    assert refills(book) == []


def test_a_refusal_is_taken_for_a_second() -> None:
    book = drawing_book()
    refills(book)
    denial = Denial("r0", "b", "", DenialCause.HELD)
    answer(book, book.make_sync(now_ns=0), denials=[denial])
    for now_ms, asked in ((500, 0), (999, 0), (1_001, 1)):
        book.note_demand([Need("b", "", 30)], now_ns=now_ms * MS)
        assert len(refills(book, now_ms=now_ms)) == asked


def test_a_tight_balance_is_left_to_those_who_need_it() -> None:
    book = drawing_book()
    book.lots.recall(KEY, now_ns=0)
    assert refills(book) == []


def test_a_book_that_closes_wants_no_refill() -> None:
    book = drawing_book()
    assert refills(book)
    book.close()
    assert not book.pending


def test_a_book_says_that_requests_still_run_on_a_lot_that_is_over() -> None:
    book = drawing_book()
    dead_ms = 10_000
    sync = book.make_sync(now_ns=dead_ms * MS)
    (report,) = sync.reports
    assert (report.open, report.renew) == (30, True)
    answer(book, sync, now_ms=dead_ms, acks=[LeaseAck("l", 0, 10, 0, False, 10_000)])
    lot = book.lots.by_lease["l"]
    assert not lot.usable(dead_ms * MS)  # patience is the ledger's alone
    assert book.make_sync(now_ns=(dead_ms + 1_000) * MS).reports == []
    assert book.make_sync(now_ns=(dead_ms + 3_000) * MS).reports[0].renew


def test_more_asks_than_a_message_holds_go_with_the_next() -> None:
    """The control plane refuses a Sync with more groups: then nobody would get anything."""
    book = welcomed_book()
    for number in range(MAX_GROUPS + 1):
        book.ask(f"g{number}", AGENT, [GroupItem("b", "", 1, 10, 40)])
    first, second = book.make_sync(now_ns=0), book.make_sync(now_ns=0)
    assert [len(first.groups), len(second.groups)] == [MAX_GROUPS, 1]
    assert not book.has_asks
