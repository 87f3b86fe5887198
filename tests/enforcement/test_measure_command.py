"""`comptroller prices measure`, by the management command behind it."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from budgets.models import PriceVersion
from enforcement.domain.nodecosts import record_cost
from enforcement.models import NodeUsage
from tests.budgets.world import ACTOR, World, make_world
from tests.enforcement.domain.nodes import make_node

pytestmark = pytest.mark.django_db
Said = pytest.CaptureFixture[str]
END = timezone.now().replace(minute=0, second=0, microsecond=0)
START = END - timedelta(hours=2)


@pytest.fixture(autouse=True)
def world() -> World:
    found = make_world()
    node = make_node(found, models=["llama"], created_at=START)
    who: dict[str, Any] = {"organization_id": found.id, "actor": ACTOR, "node_id": node.pk}
    record_cost(**who, cost_per_hour_nanos=10**9, now=timezone.now(), valid_from=START)
    NodeUsage.objects.create(
        node=node, hour=START, prompt_tokens=600_000, generation_tokens=100_000
    )
    return found


def ask(capsys: Said, *words: str, form: str = "json") -> Any:
    times = (f"--since={START.isoformat()}", f"--until={END.isoformat()}")
    call_command("measure_prices", "llama", *times, *words, f"--format={form}")
    said = capsys.readouterr().out
    return json.loads(said) if form == "json" else said


def test_rates_are_told_then_applied(capsys: Said) -> None:
    told = ask(capsys)
    assert (told["input"], told["cached_input"], told["output"]) == ("2.00", "0.20", "8.00")
    assert (told["applied"], told["evidence"]["nodes"][0]["idle_hours"]) == (False, 1)
    assert PriceVersion.objects.count() == 0
    assert ask(capsys, "--apply", "--reason=May")["applied"] is True
    assert PriceVersion.objects.get().evidence == told["evidence"]


def test_weights_are_a_choice(capsys: Said) -> None:
    told = ask(capsys, "--answer-weight=14", "--cached-weight=1")
    assert (told["input"], told["cached_input"], told["output"]) == ("1.00", "1.00", "14.00")


def test_a_person_reads_lines(capsys: Said) -> None:
    lines = ask(capsys, form="human").splitlines()
    assert lines[1].split() == ["gpu-a", "2.00", "2", "1", "0", "600000", "0", "100000"]
    assert "output        8.00" in lines[6]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--answer-weight=much"], "'much' is no weight"),
        (["--answer-weight=0.0001"], "'0.0001' is no weight"),
        (["--answer-weight=NaN"], "'NaN' is no weight"),
        (["--answer-weight=1e999999999"], "is no weight"),
        (["--answer-weight=-1"], "weighs more than 0"),
        (["--cached-weight=2"], "weighs 0 to 1"),
        (["--since=yesterday"], "'yesterday' is no instant"),
        (["--since=2026-13-01T00:00Z"], "is no instant"),
        (["--organization=nobody"], "no such organization"),
    ],
)
def test_what_cannot_be_done_is_said(capsys: Said, words: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        ask(capsys, *words)
    assert PriceVersion.objects.count() == 0
