"""The spool: identity, lock, torn tails, damage, quota, restatement."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.rules.spoolframes import HEADER, RECORD
from enforcement.sidecar.journal import Found, Journal, SpoolError


def open_journal(path: Path, **options: int) -> tuple[Journal, Found]:
    options = {"quota_bytes": 10_000_000, "segment_bytes": 1_000_000} | options
    journal = Journal(path, **options)
    return journal, journal.open()


def payloads(found: Found) -> list[bytes]:
    return [frame.payload for frame in found.frames if frame.kind == RECORD]


def written(path: Path, *records: bytes) -> str:
    journal, _ = open_journal(path)
    for record in records:
        assert journal.append([(RECORD, record)])
    journal.close()
    return journal.spool


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    spool = written(tmp_path, b"one", b"two")
    journal, found = open_journal(tmp_path)
    journal.append([(RECORD, b"three"), (RECORD, b"four")])
    journal.close()
    again, all_found = open_journal(tmp_path)
    again.close()
    assert payloads(found) == [b"one", b"two"]
    assert payloads(all_found) == [b"one", b"two", b"three", b"four"]
    assert [frame.sequence for frame in all_found.frames] == [1, 2, 3, 4]
    assert journal.spool == again.spool == spool
    assert not found.distrust


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    written(tmp_path / "spool", b"one")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "spool").iterdir()}
    assert modes == {"lock": 0o600, "spool": 0o600, "journal-00000001.log": 0o600}


def test_a_spool_has_one_owner(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    with pytest.raises(SpoolError, match="another sidecar"):
        Journal(tmp_path, quota_bytes=1, segment_bytes=1)
    journal.close()


def test_a_lost_identity_is_not_replaced(tmp_path: Path) -> None:
    written(tmp_path, b"one")
    (tmp_path / "spool").unlink()
    with pytest.raises(SpoolError, match="missing beside a journal"):
        Journal(tmp_path, quota_bytes=1, segment_bytes=1)


@given(cut=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_a_torn_tail_is_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("spool")
    spool = written(path, b"one", b"a longer record, in truth")
    segment = path / "journal-00000001.log"
    size = segment.stat().st_size
    os.truncate(segment, size - cut)
    journal, found = open_journal(path)
    assert payloads(found) == [b"one"]
    assert journal.spool == spool
    assert journal.append([(RECORD, b"two")])
    journal.close()
    again, after = open_journal(path)
    again.close()
    assert payloads(after) == [b"one", b"two"]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_is_never_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("spool")
    spool = written(path, b"one", b"two", b"three")
    segment = path / "journal-00000001.log"
    content = bytearray(segment.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    segment.write_bytes(bytes(content))
    journal, found = open_journal(path)
    journal.close()
    last_record_at = len(content) - HEADER.size - len(b"three")
    if at >= last_record_at:
        assert (payloads(found), journal.spool) == ([b"one", b"two"], spool)
    else:
        assert payloads(found) == []
        assert journal.spool != spool
        aside = path / f"quarantine-{spool}"
        assert (aside / "journal-00000001.log").read_bytes() == bytes(content)


def test_a_missing_record_in_the_middle_is_damage(tmp_path: Path) -> None:
    spool = written(tmp_path, b"one", b"two", b"three")
    segment = tmp_path / "journal-00000001.log"
    content = segment.read_bytes()
    size = HEADER.size + 3
    segment.write_bytes(content[:size] + content[2 * size :])
    journal, found = open_journal(tmp_path)
    journal.close()
    assert (payloads(found), journal.spool == spool) == ([], False)


def test_the_quota_keeps_a_reserve_for_ends(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path, quota_bytes=1_000)
    while journal.accepts_holds:
        assert journal.append([(RECORD, b"x" * 50)])
    assert 900 <= journal.total_bytes < 1_000
    assert journal.append([(RECORD, b"end")])
    assert not journal.append([(RECORD, b"y" * 100)])
    assert not journal.append([(RECORD, b"waits behind")])
    journal.quota_bytes = 10_000
    assert journal.retry()
    assert journal.accepts_holds
    journal.close()
    again, found = open_journal(tmp_path)
    again.close()
    assert payloads(found)[-3:] == [b"end", b"y" * 100, b"waits behind"]


def test_a_disk_that_fails_loses_nothing_it_promised(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.append([(RECORD, b"one")])
    broken = os.open(tmp_path / "journal-00000001.log", os.O_RDONLY)
    good, journal._descriptor = journal._descriptor, broken
    assert not journal.append([(RECORD, b"two")])
    assert not journal.accepts_holds
    assert not journal.retry()
    journal._descriptor = good
    assert journal.retry()
    journal.close()
    os.close(broken)
    again, found = open_journal(tmp_path)
    again.close()
    assert payloads(found) == [b"one", b"two"]


def test_a_failed_sync_is_remembered(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    good, journal._descriptor = journal._descriptor, 9_999
    assert not journal.sync()
    journal._descriptor = good
    assert not journal.sync()
    journal.close()
    again, found = open_journal(tmp_path)
    again.trust_again()
    again.close()
    last, after = open_journal(tmp_path)
    last.close()
    assert (found.distrust, after.distrust) == (True, False)


def test_a_restatement_replaces_what_came_before(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    for _ in range(50):
        journal.append([(RECORD, b"x" * 100)])
    assert journal.restate([(RECORD, b"state")])
    journal.append([(RECORD, b"later")])
    assert journal.total_bytes < 200
    journal.close()
    again, found = open_journal(tmp_path)
    again.close()
    assert payloads(found) == [b"state", b"later"]
    assert [path.name for path in tmp_path.glob("*.log")] == ["journal-00000002.log"]


def test_an_unfinished_restatement_is_as_if_it_never_began(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.append([(RECORD, b"one")])
    first = (tmp_path / "journal-00000001.log").read_bytes()
    journal.restate([(RECORD, b"state"), (RECORD, b"more")])
    journal.close()
    (tmp_path / "journal-00000001.log").write_bytes(first)
    second = tmp_path / "journal-00000002.log"
    os.truncate(second, second.stat().st_size - 5)
    again, found = open_journal(tmp_path)
    again.append([(RECORD, b"two")])
    again.close()
    last, after = open_journal(tmp_path)
    last.close()
    assert payloads(found) == [b"one"]
    assert payloads(after) == [b"one", b"two"]


def test_a_restatement_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path, quota_bytes=1_000)
    journal.append([(RECORD, b"x" * 500)])
    assert not journal.restate([(RECORD, b"y" * 600)])
    assert journal.append([(RECORD, b"two")])
    journal.close()
    again, found = open_journal(tmp_path)
    again.close()
    assert payloads(found) == [b"x" * 500, b"two"]
