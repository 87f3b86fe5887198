"""The usage explorer: groups in words, an empty state, mistakes told."""

import pytest

from budgets.domain.rollups import fold_usage
from tests.budgets.api.test_usage import RANGE, book
from tests.budgets.world import NOW, World
from tests.visitors import Visitors

URL = "/usage/"


def test_groups_are_shown_in_words(world: World, visitors: Visitors) -> None:
    book(world, model="dear", charge_nanos=9_000_000, tags={"env": "<prod>"})
    fold_usage(now=NOW)
    shown = visitors.admin.get(URL, {"first": "agent", "second": "tag:env", **RANGE})
    text = shown.content.decode()
    assert shown.status_code == 200
    assert f'<th scope="row">{world.agent.name}</th><td>&lt;prod&gt;</td>' in text
    assert "for 1 call<" in text
    assert f"/api/v1/usage/export?since={RANGE['since']}&amp;until={RANGE['until']}" in text


def test_without_use_it_says_so(world: World, visitors: Visitors) -> None:
    shown = visitors.admin.get(URL)
    assert shown.status_code == 200
    assert "Nothing was used" in shown.content.decode()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"first": "mood"}, "nothing is told apart by"),
        ({"filters": "model"}, "write NAME=VALUE"),
        ({"filters": "agent=nobody"}, "no agent"),
        ({"since": "2026-05-02", "until": "2026-05-01"}, "must be before until"),
        ({"since": "soon"}, "Enter a valid date"),
        ({"since": "9999-12-30", "until": "9999-12-31"}, "must be before 9999"),
        ({"first": "minute"}, "nothing is told apart by"),
        ({"second": "agent"}, "the same twice"),
        ({"first": "hour", "second": "day"}, "one span of time at most"),
        ({"filters": ",".join(f"tag:{number}=x" for number in range(9))}, "at most 8"),
        ({"filters": "x" * 2_001}, "at most 2000 characters"),
        ({"first": "tag:\x00"}, "Null characters are not allowed"),
    ],
)
def test_mistakes_are_told(
    world: World, visitors: Visitors, asked: dict[str, str], words: str
) -> None:
    shown = visitors.admin.get(URL, asked)
    assert (shown.status_code, words in shown.content.decode()) == (422, True)
