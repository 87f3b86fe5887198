"""What cells answer is what the events say, for every pair of dimensions and any days."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from random import Random
from typing import Any

import pytest
from django.db import connection

from budgets.domain import foldsql
from budgets.domain.dimensions import COLUMNS, Dimension, Pair, pair_of
from budgets.domain.prices import set_own_price
from budgets.domain.rerate import Wish, rerate
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.errors import UsageQueryError
from budgets.models import UsageCell, UsageEvent, UsageValue
from budgets.queries.explore import Answer, ask, grouping_of, pair_behind, planned, statement
from budgets.queries.exploresql import Question, of_cells, spans
from enforcement.rules.policy import Rates
from enforcement.rules.wire import Outcome
from tests.budgets.world import ACTOR, NOW, World, call, make_world, ms

TODAY = NOW.date()
DAY = timedelta(days=1)
NAMES = (*COLUMNS, "tag:env")
DAYS = 40


def book(world: World, *, at: datetime = NOW, **changes: Any) -> None:
    event = call(world, started_at_ms=ms(at), **changes)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=NOW)


def question(world: World, *by: str, **changes: Any) -> Question:
    filters = {grouping_of(name): value for name, value in changes.pop("filters", {}).items()}
    values = {"since": TODAY - DAYS * DAY, "until": TODAY + DAY} | changes
    return Question(world.id, by=tuple(map(grouping_of, by)), filters=filters, **values)


def told(answer: Answer) -> dict[tuple[str | None, ...], tuple[int, int, int]]:
    return {
        group.key: (group.calls, group.cut_calls, group.charge_nanos) for group in answer.groups
    }


@pytest.fixture
def busy(world: World) -> World:
    """Two hundred calls of forty days, of every kind."""
    random = Random(7)
    for _ in range(200):
        tags = random.choice([{}, {"env": "prod"}, {"env": "test", "x": "1"}, {"x": "2"}])
        book(
            world,
            at=NOW - timedelta(minutes=random.randrange(DAYS * 24 * 60)),
            agent=str(random.choice([world.agent, world.loner]).id),
            user=random.choice(["", "ann", "bob"]),
            model=random.choice(["small", "large"]),
            provider=random.choice(["", "openai"]),
            node=random.choice(["n1", "n2"]),
            skill=random.choice(["", "search"]),
            endpoint=random.choice(["chat", "embeddings"]),
            service_tier=random.choice(["", "priority"]),
            outcome=random.choice([Outcome.COMPLETED, Outcome.CUT]),
            tags=tags,
            charge_nanos=random.randrange(5_000),
        )
    book(make_world("other"), model="small")
    fold_usage(now=NOW)
    return world


def truth(
    world: World, by: tuple[str, ...], since: date, until: date
) -> dict[tuple[str | None, ...], tuple[int, int, int]]:
    found: dict[tuple[str | None, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for event in UsageEvent.objects.filter(organization=world.organization):
        if since <= event.started_at.astimezone(UTC).date() < until:
            sums = found[tuple(said(event, name) for name in by)]
            sums[0] += 1
            sums[1] += event.outcome == Outcome.CUT
            sums[2] += event.charge_nanos
    return {key: (calls, cut, nanos) for key, (calls, cut, nanos) in found.items()}


def said(event: UsageEvent, name: str) -> str | None:
    if name.startswith("tag:"):
        return str(event.tags.get(name.removeprefix("tag:"), ""))
    value = getattr(event, COLUMNS[Dimension(name)].strip('"'))
    return None if value is None else str(value)


def test_every_two_dimensions_add_up(busy: World) -> None:
    for by in combinations(NAMES, 2):
        for days in (DAYS + 1, 9, 3):
            since = TODAY - timedelta(days=days - 1)
            answer = ask(question(busy, *by, since=since))
            assert told(answer) == truth(busy, by, since, TODAY + DAY), (by, days)
            assert not answer.from_events


def test_every_dimension_adds_up_alone_and_in_any_order(busy: World) -> None:
    for name in NAMES:
        answer = ask(question(busy, name))
        assert told(answer) == truth(busy, (name,), TODAY - DAYS * DAY, TODAY + DAY)
    turned = ask(question(busy, "model", "agent"))
    assert told(turned) == truth(busy, ("model", "agent"), TODAY - DAYS * DAY, TODAY + DAY)


def test_more_than_two_dimensions_are_read_from_the_events(busy: World) -> None:
    asked = question(busy, "agent", "model", filters={"tag:env": "prod"})
    answer = ask(asked)
    assert answer.from_events
    everything = truth(busy, ("agent", "model", "tag:env"), asked.since, asked.until)
    assert told(answer) == {key[:2]: sums for key, sums in everything.items() if key[2] == "prod"}


def test_filters_are_answered_by_cells_where_two_dimensions_suffice(busy: World) -> None:
    asked = question(busy, "model", filters={"tag:env": "prod"})
    answer = ask(asked)
    everything = truth(busy, ("model", "tag:env"), asked.since, asked.until)
    assert told(answer) == {key[:1]: sums for key, sums in everything.items() if key[1] == "prod"}
    assert not answer.from_events
    assert ask(question(busy, "model", filters={"user": "nobody"})).groups == []
    unsaid = ask(question(busy, filters={"user": ""})).total
    assert unsaid.calls == truth(busy, ("user",), asked.since, asked.until)[("",)][0]


def test_time_is_told_in_order(busy: World) -> None:
    for step in ("day", "week", "hour"):
        answer = ask(question(busy, step, most=10_000))
        keys = [group.key for group in answer.groups]
        assert keys == sorted(keys)
        assert sum(group.calls for group in answer.groups) == 200
    days = ask(question(busy, "day", "model", most=10_000))
    assert days.groups[0].key[0] == min(group.key[0] or "" for group in days.groups)
    assert ask(question(busy, "hour", "model", most=10_000)).total == days.total


def test_the_dearest_come_first_and_the_total_is_of_all(world: World) -> None:
    for number in range(5):
        book(world, model=f"m{number}", charge_nanos=number)
    fold_usage(now=NOW)
    answer = ask(question(world, "model", most=2))
    assert [group.key for group in answer.groups] == [("m4",), ("m3",)]
    assert (answer.found, answer.total.calls, answer.total.charge_nanos) == (5, 5, 10)
    assert answer.folded_at == NOW


def test_without_use_there_is_nothing(world: World) -> None:
    answer = ask(question(world, "agent", "model"))
    assert (answer.groups, answer.found, answer.total.calls, answer.folded_at) == ([], 0, 0, None)


def test_late_events_and_ratings_reach_the_cells(world: World) -> None:
    set_own_price(
        organization_id=world.id,
        model="gemma",
        rates=Rates(input=10**9, output=10**9),
        actor=ACTOR,
        now=NOW,
    )
    book(world, at=NOW - 30 * DAY)
    fold_usage(now=NOW)
    book(world, at=NOW - 30 * DAY)
    wish = Wish(organization_id=world.id, model="gemma", since=NOW - 40 * DAY, until=NOW)
    rerate(wish, actor=ACTOR, reason="new price", now=NOW)
    fold_usage(now=NOW)
    cells, events = ask(question(world, "agent", "model")), ask(question(world, "session"))
    assert cells.total == events.total
    assert (cells.total.calls, cells.total.charge_nanos != 3_000) == (2, True)


def test_values_beyond_the_bound_are_counted_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = foldsql.VALUES.replace("<= 10000", "<= 2")
    monkeypatch.setattr("budgets.domain.rollups.VALUES", bounded)
    for number in range(4):
        for _ in range(4 - number):
            book(world, user=f"u{number}")
    fold_usage(now=NOW)
    answer = ask(question(world, "user"))
    assert told(answer) == {
        ("u0",): (4, 0, 6_000),
        ("u1",): (3, 0, 4_500),
        ("(other)",): (3, 0, 4_500),
    }
    assert UsageValue.objects.filter(value__startswith="u").count() == 2


def test_weeks_are_read_whole_and_days_at_their_ends() -> None:
    monday = date(2026, 5, 4)
    assert spans(monday, monday + 14 * DAY, whole_weeks=True) == [(168, monday, monday + 14 * DAY)]
    assert spans(monday + DAY, monday + 16 * DAY, whole_weeks=True) == [
        (24, monday + DAY, monday + 7 * DAY),
        (168, monday + 7 * DAY, monday + 14 * DAY),
        (24, monday + 14 * DAY, monday + 16 * DAY),
    ]
    assert spans(monday + DAY, monday + 8 * DAY, whole_weeks=True) == [
        (24, monday + DAY, monday + 8 * DAY)
    ]


def test_cells_answer_what_names_two_dimensions(world: World) -> None:
    def pair(*by: str, **filters: str) -> Pair | None:
        return pair_behind(question(world, *by, filters=filters))

    assert pair() == Pair()
    assert pair("day", "agent") == pair("agent") == Pair(Dimension.AGENT)
    assert pair("model", "agent") == Pair(Dimension.AGENT, Dimension.MODEL)
    assert pair("agent", agent="x") == Pair(Dimension.AGENT)
    assert pair("agent", "model", node="x") is None
    assert pair("session") is None
    assert pair("hour", "agent", model="x") is None
    assert pair("tag:a", "tag:b") is None
    assert pair_of([Dimension.TAG, Dimension.TAG]) is None


@pytest.mark.parametrize(
    ("by", "changes", "field"),
    [
        (["model"], {"until": TODAY - DAYS * DAY}, "since"),
        (["model"], {"since": TODAY - 400 * DAY}, "since"),
        (["model", "agent", "node"], {}, "group_by"),
        (["model", "model"], {}, "group_by"),
        (["day", "hour"], {}, "group_by"),
        (["model"], {"filters": {"day": "x"}}, "filter"),
        (["model"], {"most": 0}, "limit"),
        (["model"], {"most": 10_001}, "limit"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    world: World, by: list[str], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageQueryError) as caught:
        ask(question(world, *by, **changes))
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["", "mood", "tag:", "tag", "Agent", "organization_id"])
def test_an_unknown_grouping_is_refused(name: str) -> None:
    with pytest.raises(UsageQueryError):
        grouping_of(name)


@pytest.mark.parametrize("value", ["'; DROP TABLE x --", "%(tag)s", "%s", "a=b=c", "\\", "ü"])
def test_values_are_only_values(world: World, value: str) -> None:
    book(world, user=value, tags={value: value})
    fold_usage(now=NOW)
    assert told(ask(question(world, "user"))) == {(value,): (1, 0, 1_500)}
    assert told(ask(question(world, f"tag:{value}", filters={"user": value})))
    by_session = ask(question(world, "session", f"tag:{value}", filters={f"tag:{value}": value}))
    assert told(by_session) == {("", value): (1, 0, 1_500)}


def test_there_is_a_partition_for_each_pair(busy: World) -> None:
    assert UsageCell.objects.values("dimensions").distinct().count() == 79


def plan(question: Question) -> str:
    pair = pair_behind(question)
    assert pair is not None
    source = of_cells(question, pair)
    with planned(of_cells=True) as cursor:
        cursor.execute(
            f"EXPLAIN (COSTS OFF) {statement(source, question)}",
            source.given | {"most": question.most},
        )
        return "\n".join(line for (line,) in cursor.fetchall())


def test_a_plan_is_the_same_however_many_cells_there_are(busy: World) -> None:
    asked = [question(busy, *pair) for pair in combinations(NAMES, 2)]
    few = list(map(plan, asked))
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pg_class SET reltuples = 1000000, relpages = 1"
            " WHERE relname LIKE 'budgets_usagecell%'"
        )
    assert list(map(plan, asked)) == few
    assert not [one for one in few if "Seq Scan" in one or one.count("HashAggregate") != 1]
