"""What a book makes of its journal: under-count nothing, presume what was running."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules import records
from enforcement.rules.book import Book
from enforcement.rules.lots import Hold, InvariantError, Need
from enforcement.rules.recovery import Recovery, recover
from enforcement.rules.wire import Grant, Outcome, Part, UsageEvent

KEY = ("b", "")
GRANTED = records.Granted("l", "b", "", 0, 100, "i", "mac")
BOOTED = records.Booted(1, "i", "kernel-1")


def event(event_id: str) -> UsageEvent:
    return UsageEvent(event_id, "agent", "m", 0, Outcome.UPSTREAM_FAILED)


def recovered(*journal: records.Record, boot: str = "kernel-1") -> tuple[Book, Recovery]:
    book = Book(organization="o", spool="s")
    return book, recover(book, journal, kernel_boot_id=boot)


def watermarks(book: Book, lease: str = "l") -> tuple[int, int, int, bool]:
    return book.lots.by_lease[lease].state()


def test_what_running_requests_held_is_used_and_the_rest_returned() -> None:
    book, found = recovered(BOOTED, GRANTED, records.Held(1, [("l", 30)], event("e")))
    assert watermarks(book) == (30, 70, 0, True)
    assert [(e.id, e.presumed, e.parts) for e in found.events] == [
        ("e", True, [Part("b", "", "l", 30)])
    ]
    assert (found.epoch, found.incarnation, found.clean) == (1, "i", False)


def test_a_settled_hold_counts_what_it_used() -> None:
    held, settled = (
        records.Held(1, [("l", 30)]),
        records.Settled(1, [("l", 12)], [("l", 3)], event("e")),
    )
    book, found = recovered(BOOTED, GRANTED, held, settled)
    assert watermarks(book) == (12, 88, 3, True)
    assert [(e.id, e.presumed) for e in found.events] == [("e", False)]


def test_an_extension_is_part_of_its_hold() -> None:
    book, found = recovered(
        BOOTED, GRANTED, records.Held(1, [("l", 30)], event("e")), records.Held(1, [("l", 5)])
    )
    assert watermarks(book) == (35, 65, 0, True)
    assert len(found.events) == 1


def test_after_a_power_loss_nothing_unreturned_is_called_unused() -> None:
    book, _ = recovered(BOOTED, GRANTED, records.Returned("l", 20), boot="kernel-2")
    assert watermarks(book) == (80, 20, 0, True)
    assert records.Presumed("l", 80) in book.lots.journal_out


def test_after_a_power_loss_a_durably_final_lease_stays_as_it_was() -> None:
    journal = [BOOTED, GRANTED, records.Returned("l", 100), records.Final("l")]
    book, _ = recovered(*journal, boot="kernel-2")
    assert watermarks(book) == (0, 100, 0, True)


def test_a_clean_end_survives_a_reboot() -> None:
    book, found = recovered(BOOTED, GRANTED, records.Closed(), boot="kernel-2")
    assert (watermarks(book), found.clean) == ((0, 100, 0, True), True)


def test_recovering_twice_changes_nothing() -> None:
    journal: list[records.Record] = [BOOTED, GRANTED, records.Held(1, [("l", 30)], event("e"))]
    first, _ = recovered(*journal)
    second, found = recovered(*journal, *first.lots.journal_out)
    assert watermarks(second) == watermarks(first)
    assert (second.lots.journal_out, [e.id for e in found.events]) == ([], ["e"])


def test_an_acknowledged_final_is_not_reported_again() -> None:
    journal = [BOOTED, GRANTED, records.Returned("l", 100), records.Final("l")]
    book, _ = recovered(*journal, records.Acknowledged("l", 7))
    assert book.lots.by_lease["l"].acked
    assert book.make_sync(now_ns=0).reports == []


def test_holds_are_numbered_on() -> None:
    book, _ = recovered(BOOTED, GRANTED, records.Held(41, [("l", 1)]))
    hold = book.lots.place([], now_ns=0)
    assert isinstance(hold, Hold)
    assert hold.id == 42


def test_a_journal_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(InvariantError, match="never placed"):
        recovered(BOOTED, GRANTED, records.Settled(9, [("l", 1)]))


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), max_size=6), st.data())
def test_no_cut_of_the_journal_under_counts(requests, data) -> None:
    """Whatever prefix was written: used ≥ what settled in it, plus what was running."""
    live = Book(organization="o", spool="s")
    grant = Grant("l", "g", "b", "", 0, 100, 10_000, "mac")
    live.lots.add(grant, incarnation="i", asked_ns=0, now_ns=0, live=True)
    live.lots.mark_durable(["l"])
    truth = [0] * len(live.lots.journal_out)
    spent = 0
    for need, used in requests:
        hold = live.lots.place([Need(*KEY, need)], now_ns=0)
        if not isinstance(hold, Hold):
            break
        truth += [spent + min(used, need)] * (len(live.lots.journal_out) - len(truth))
        live.lots.settle(hold, {KEY: min(used, need)}, now_ns=0)
        spent += min(used, need)
        truth += [spent] * (len(live.lots.journal_out) - len(truth))
    cut = data.draw(st.integers(1, len(live.lots.journal_out)))
    book, _ = recovered(BOOTED, *live.lots.journal_out[:cut])
    used, returned, _, final = watermarks(book)
    assert used >= truth[cut - 1]
    assert (used + returned, final) == (100, True)
