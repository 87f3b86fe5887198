"""Ids are fresh: never the same twice, not in a forked process either."""

import os

from enforcement.sidecar import clock


def test_ids_differ_and_sort_by_time() -> None:
    made = [clock.new_id() for _ in range(1_000)]
    assert len(set(made)) == 1_000
    assert [one[:8] for one in made] == sorted(one[:8] for one in made)


def test_a_forked_process_makes_other_ids() -> None:
    clock.new_id()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, clock.new_id()[-12:].encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 64).decode() != clock.new_id()[-12:]
