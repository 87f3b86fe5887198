"""Ids of rows sort by the time they were made, also within a millisecond."""

import multiprocessing
import time
from uuid import UUID

from controlplane.identity.ids import new_id, new_id_text


def spaced_id() -> UUID:
    """The next id, at least two steps of the clock's fraction later."""
    end = time.perf_counter_ns() + 1_000
    while time.perf_counter_ns() < end:
        pass
    return new_id()


def test_ids_sort_as_they_were_made() -> None:
    ids = [spaced_id() for _ in range(2_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 2_000


def test_an_id_is_a_uuid7_of_now() -> None:
    before, made, after = time.time_ns(), new_id(), time.time_ns()
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before // 1_000_000 <= made.int >> 80 <= after // 1_000_000


def make_ids(count: int) -> list[UUID]:
    return [new_id() for _ in range(count)]


def test_forked_processes_make_ids_of_their_own() -> None:
    new_id()  # there is a stock of random bytes to inherit
    with multiprocessing.get_context("fork").Pool(2) as pool:
        made = [id_ for ids in pool.map(make_ids, [1_000] * 4, chunksize=1) for id_ in ids]
    tails = {id_.int & ((1 << 62) - 1) for id_ in [*made, *make_ids(1_000)]}
    assert len(tails) == 5_000


def test_ids_as_text_are_of_the_same_row() -> None:
    made = [str(new_id()), new_id_text(), str(new_id()), new_id_text()]
    assert made == sorted(made)
    assert [UUID(text).version for text in made] == [7, 7, 7, 7]
