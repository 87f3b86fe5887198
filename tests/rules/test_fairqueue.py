"""Agents in turn, a bounded queue, and floods that fill only their own part."""

from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.fairqueue import FairQueue


class Entry:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def fill(queue: FairQueue[Entry], agent: str, count: int, *, weight: int = 1) -> list[Entry]:
    made = [Entry(f"{agent}{n}") for n in range(count)]
    for entry in made:
        assert queue.push(agent, entry, weight=weight) is None
    return made


def served(queue: FairQueue[Entry], count: int) -> list[str]:
    """The next ones, each of which keeps its slot."""
    names = []
    for _ in range(count):
        found = queue.pop()
        assert found is not None
        queue.take(found[0])
        names.append(found[1].name)
    return names


def test_one_agent_is_served_in_order_of_arrival() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=10)
    fill(queue, "a", 3)
    assert served(queue, 3) == ["a0", "a1", "a2"]
    assert queue.pop() is None


def test_a_flood_does_not_starve_who_comes_later() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=100)
    fill(queue, "flood", 50)
    fill(queue, "b", 2)
    fill(queue, "c", 1)
    assert served(queue, 5) == ["flood0", "b0", "c0", "flood1", "b1"]


def test_a_weight_of_two_gets_two_slots_for_one() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=100)
    fill(queue, "a", 20, weight=2)
    fill(queue, "b", 20)
    names = served(queue, 9)
    assert sum(name.startswith("a") for name in names) == 6


def test_what_ends_makes_room_for_the_same_agent_again() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=100)
    fill(queue, "a", 5)
    fill(queue, "b", 5)
    assert served(queue, 4) == ["a0", "b0", "a1", "b1"]
    queue.give_back("b")
    queue.give_back("b")
    assert served(queue, 2) == ["b2", "b3"]
    assert queue.using == {"a": 2, "b": 2}


def test_an_agent_at_its_own_limit_waits() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=100)
    fill(queue, "a", 2)
    queue.take("a")
    assert queue.pop(most=1) is None
    fill(queue, "b", 1)
    found = queue.pop(most=1)
    assert found is not None
    assert found[0] == "b"


def test_a_full_queue_drops_from_the_longest_part() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=4)
    made = fill(queue, "flood", 4)
    newcomer = Entry("b0")
    assert queue.push("b", newcomer) is made[3]
    more = Entry("flood4")
    assert queue.push("flood", more) is more
    assert len(queue) == 4
    assert served(queue, 2) == ["flood0", "b0"]


def test_no_queue_at_all_refuses_at_once() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=0)
    entry = Entry("a")
    assert queue.push("a", entry) is entry
    assert len(queue) == 0


def test_who_leaves_is_not_served() -> None:
    queue: FairQueue[Entry] = FairQueue(limit=4)
    first, second = fill(queue, "a", 2)
    queue.remove("a", first)
    queue.remove("a", first)
    queue.remove("nobody", second)
    assert served(queue, 1) == ["a1"]
    assert len(queue) == 0


steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["push", "pop", "end", "leave"])),
    max_size=120,
)


@given(steps, st.integers(1, 10))
def test_nothing_is_lost_or_served_twice(found: list[tuple[str, str]], limit: int) -> None:
    queue: FairQueue[Entry] = FairQueue(limit=limit)
    waiting: list[tuple[str, Entry]] = []
    running: list[str] = []
    for agent, step in found:
        if step == "push":
            entry = Entry(agent)
            gone = queue.push(agent, entry)
            waiting = [pair for pair in [*waiting, (agent, entry)] if pair[1] is not gone]
        elif step == "pop" and (popped := queue.pop()) is not None:
            waiting.remove(popped)
            served_now = popped[0]
            assert all(running.count(served_now) <= running.count(other) for other, _ in waiting)
            queue.take(served_now)
            running.append(served_now)
        elif step == "end" and agent in running:
            running.remove(agent)
            queue.give_back(agent)
        elif step == "leave":
            for pair in [pair for pair in waiting if pair[0] == agent][:1]:
                queue.remove(*pair)
                waiting.remove(pair)
        assert len(queue) == len(waiting) <= limit
    assert sum(queue.using.values()) == len(running)
