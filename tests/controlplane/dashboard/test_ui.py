from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.template import Context, Template

from controlplane.dashboard import statuses
from controlplane.dashboard.templatetags import ui
from enforcement.rules.policy import AgentState, Mode, OrderKind
from enforcement.rules.wire import Outcome

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)


@dataclass
class Bar:
    limit: int = 1_000
    spent: int = 0
    held: int = 0
    suspense: int = 0
    overrun: int = 0
    unit: str = "tokens"
    level: str = "calm"


def render(text: str, **context: Any) -> str:
    return Template("{% load ui %}" + text).render(Context(context))


def test_the_parts_of_a_bar_abut() -> None:
    drawn = ui.meter(Bar(spent=250, held=100, suspense=50))
    assert '<rect class="meter-spent" x="0.0%" width="25.0%"' in drawn
    assert '<rect class="meter-held" x="25.0%" width="10.0%"' in drawn
    assert '<rect class="meter-suspense" x="35.0%" width="5.0%"' in drawn
    assert "meter-overrun" not in drawn


def test_an_overspent_bar_is_full_and_says_by_how_much() -> None:
    drawn = ui.meter(Bar(limit=100, spent=100, overrun=100, level="full"))
    assert 'class="meter-overrun" x="50.0%" width="50.0%"' in drawn
    assert 'aria-label="spent 100 tokens, overrun 100 tokens of 100 tokens"' in drawn


def test_the_least_use_is_visible() -> None:
    assert 'class="meter-spent" x="0.0%" width="0.6%"' in ui.meter(Bar(limit=10**9, spent=1))


def test_an_untouched_bar_says_so() -> None:
    assert 'aria-label="nothing spent of 1,000 tokens"' in ui.meter(Bar())


def test_money_shows_cents_and_keeps_every_digit() -> None:
    assert ui.money(1_234_567_890) == (
        '<data class="num" value="$1.23456789" title="$1.23456789">$1.23</data>'
    )
    assert ui.money(None) == "—"


def test_text_of_others_is_escaped() -> None:
    assert render("{% badge word %}", word="<b>") == (
        '<span class="badge badge-idle">&lt;b&gt;</span>'
    )


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("agent", AgentState),
        ("mode", Mode),
        ("outcome", Outcome),
        ("order", [OrderKind.KILL, OrderKind.PAUSE, OrderKind.RESUME, OrderKind.THROTTLE]),
        ("lease", ["granted", "recalled", "suspended", "settled", "written_off"]),
        ("budget", ["arming", "armed"]),
    ],
)
def test_every_state_has_words(family: str, values: Any) -> None:
    assert [str(value) for value in values if value not in statuses.FAMILIES[family]] == []


def test_every_icon_of_a_state_is_in_the_sprite() -> None:
    sprite = ui.icon_sprite()
    known = [status for family in statuses.FAMILIES.values() for status in family.values()]
    assert [status.icon for status in known if f'id="i-{status.icon}"' not in sprite] == []


def test_an_unknown_state_is_shown_as_it_is() -> None:
    assert statuses.status("agent", "half_alive").label == "Half alive"


def test_instants_are_told_in_the_organizations_zone() -> None:
    @dataclass
    class Tokyo:
        time_zone: str = "Asia/Tokyo"

    shown = render("{% instant at %}", at=NOW, organization=Tokyo())
    assert ">13 May 2026, 19:30</time>" in shown
    assert 'title="2026-05-13 19:30:00 JST"' in shown
    assert render("{% ago at %}", at=None) == "never"


@pytest.mark.parametrize(
    ("name", "letters"),
    [("Code reviewer", "CR"), ("Runaway (strict)", "RS"), ("dana@x.example", "DX"), ("", "?")],
)
def test_marks_have_initials(name: str, letters: str) -> None:
    assert ui.initials(name) == letters
