"""Bills beside metered use: which rows they stand in, what they show, and what a newer one changes."""

from datetime import datetime, timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from controlplane.audit.models import AuditEntry
from enforcement.domain.bills.reading import read_bill
from enforcement.domain.bills.storing import Kept, keep_bill
from enforcement.domain.drift import alert
from enforcement.domain.reconciliation import reconcile, reconciled
from enforcement.errors import BillError
from enforcement.models import BillLine, Reconciliation, ServingNode
from enforcement.rules.reconcile import Threshold
from tests.budgets.world import ACTOR, NOW, World, make_world
from tests.enforcement.domain.bills.pages import DAY, completions, costs, openai_page
from tests.enforcement.domain.nodes import make_node, meter
from tests.enforcement.domain.test_drift import told

READ_AT = DAY + timedelta(days=2)
MODEL = "gpt-4o"
SNAPSHOT = "gpt-4o-2024-08-06"


@pytest.fixture
def node(world: World) -> ServingNode:
    """A provider: it has no counters."""
    return make_node(world, "openai-eu", metrics_path="", provider="openai")


def call(world: World, at: datetime = NOW, **changes: Any) -> None:
    """100 + 20 tokens for two cents."""
    values = {"node": "openai-eu", "provider": "openai", "model": MODEL}
    meter(world, at, **{"charge_nanos": 20_000_000, **values, **changes})


def keep(world: World, content: bytes, *, now: datetime = READ_AT, account: str = "") -> Kept:
    return keep_bill(
        organization_id=world.id,
        lines=read_bill(content),
        account=account,
        source="bill.json",
        actor=ACTOR,
        now=now,
    )


def rows() -> list[Reconciliation]:
    return list(Reconciliation.objects.order_by("starts_at", "ends_at", "model", "node"))


def judged() -> list[tuple[str, str, str, str]]:
    return [(row.node, row.model, row.verdict, row.cause_kind) for row in rows()]


def whole_day(*results: dict[str, Any]) -> bytes:
    return openai_page(list(results), hour=0, hours=24)


# ------------------------------------------------------------------------------- which rows


def test_a_bill_of_an_hour_stands_beside_the_only_node_that_was_called(
    world: World, node: ServingNode
) -> None:
    call(world)
    keep(world, openai_page([completions(SNAPSHOT, 100, 20, input_cached_tokens=10)]))
    (row,) = rows()
    assert (row.node, row.model, row.verdict, row.cause) == ("openai-eu", MODEL, "agrees", "")
    assert (row.metered_prompt_tokens, row.billed_prompt_tokens) == (100, 100)
    assert (row.billed_cached_tokens, row.billed_generation_tokens) == (10, 20)
    assert (row.produced_prompt_tokens, row.billed_nanos) == (None, None)


def test_a_bill_of_several_nodes_has_a_row_of_its_own(world: World, node: ServingNode) -> None:
    make_node(world, "openai-us", metrics_path="", provider="openai")
    call(world)
    call(world, node="openai-us")
    keep(world, openai_page([completions(MODEL, 200, 40)]))
    assert judged() == [
        ("", MODEL, "agrees", ""),
        ("openai-eu", MODEL, "alone", "no_counters"),
        ("openai-us", MODEL, "alone", "no_counters"),
    ]


def test_a_bill_of_a_day_is_of_all_its_hours(world: World, node: ServingNode) -> None:
    for hour in (1, 23):
        call(world, DAY + timedelta(hours=hour))
    call(world, DAY + timedelta(hours=24))
    keep(world, whole_day(completions(MODEL, 200, 40), costs(0.04, f"{MODEL}, input")))
    row = next(row for row in rows() if row.ends_at - row.starts_at == timedelta(days=1))
    assert (row.node, row.model, row.verdict) == ("openai-eu", MODEL, "agrees")
    assert (row.calls, row.charge_nanos, row.billed_nanos) == (2, 40_000_000, 40_000_000)


def test_costs_that_name_no_model_are_of_all_models(world: World, node: ServingNode) -> None:
    call(world)
    call(world, model="o3")
    keep(world, whole_day(costs(0.04)))
    assert [row for row in judged() if row[1] == ""] == [("openai-eu", "", "agrees", "")]


def test_accounts_of_one_provider_are_billed_together(world: World, node: ServingNode) -> None:
    call(world)
    call(world)
    keep(world, openai_page([completions(MODEL, 100, 20)]), account="a")
    assert judged() == [("openai-eu", MODEL, "drifts", "not_billed")]
    keep(world, openai_page([completions(MODEL, 100, 20)]), account="b")
    assert judged() == [("openai-eu", MODEL, "agrees", "")]


# ------------------------------------------------------------------------------- what is shown


def test_what_was_billed_and_never_metered_goes_past_the_sidecars(world: World) -> None:
    keep(world, openai_page([completions(SNAPSHOT, 900, 70)]))
    assert judged() == [("", SNAPSHOT, "drifts", "past_sidecars")]


def test_calls_without_a_price_explain_what_was_not_charged(
    world: World, node: ServingNode
) -> None:
    call(world, charge_nanos=0)
    keep(world, whole_day(completions(MODEL, 100, 20), costs(0.5, f"{MODEL}, input")))
    (row,) = [row for row in rows() if row.verdict == "drifts"]
    assert row.cause == "1 calls had no price here and were charged nothing."


def test_a_bill_that_was_read_early_says_nothing_yet(world: World, node: ServingNode) -> None:
    call(world)
    keep(world, openai_page([completions(MODEL, 1, 1)]), now=DAY + timedelta(hours=11))
    assert judged() == [("openai-eu", MODEL, "unknown", "bill_open")]
    keep(world, openai_page([completions(MODEL, 100, 20)]), now=DAY + timedelta(hours=13))
    assert judged() == [("openai-eu", MODEL, "agrees", "")]


def test_people_are_told_of_a_bill_that_drifts(world: World) -> None:
    keep(world, whole_day(costs(1.5, "Web searches")))
    keep(world, openai_page([completions("o3", 5_000, 70)]))
    assert alert(now=READ_AT) == 1
    assert told() == [
        (
            "openai: the provider billed 5,000 tokens more than were metered",
            (
                "2 times, lastly from 2026-05-13 10:00 to 2026-05-13 11:00 UTC. The provider billed"
                " more than was metered: calls reach it around the sidecars."
            ),
        )
    ]


# ------------------------------------------------------------------------------- again


def test_a_newer_bill_of_a_time_replaces_the_earlier_one(world: World) -> None:
    page = openai_page([completions(MODEL, 100, 20), completions("o3", 5, 5)])
    assert keep(world, page) == Kept(new=2, changed=0, gone=0, same=0)
    assert keep(world, page) == Kept(new=0, changed=0, gone=0, same=2)
    newer = openai_page([completions(MODEL, 110, 20)])
    assert keep(world, newer) == Kept(new=0, changed=1, gone=1, same=0)
    assert [(line.model, line.prompt_tokens) for line in BillLine.objects.all()] == [(MODEL, 110)]
    assert [row.billed_prompt_tokens for row in rows()] == [110]
    entry = AuditEntry.objects.filter(action="bill.import").latest("id")
    assert entry.after is not None
    assert entry.after["changed"] == 1


def test_other_times_kinds_and_organizations_are_left_alone(world: World) -> None:
    other = make_world("other")
    keep(other, openai_page([completions(MODEL, 1, 1)]))
    keep(world, openai_page([completions(MODEL, 1, 1)]))
    keep(world, openai_page([costs(1, f"{MODEL}, input")]))
    keep(world, openai_page([completions(MODEL, 1, 1)], hour=11))
    assert BillLine.objects.count() == 4


def test_to_reconcile_again_writes_nothing(world: World, node: ServingNode) -> None:
    call(world)
    keep(world, whole_day(completions(MODEL, 5_000, 20)))
    window: dict[str, Any] = {"since": DAY, "until": DAY + timedelta(days=2)}
    reconcile(organization_id=world.id, **window, now=READ_AT + timedelta(hours=9), by=Threshold())
    found = reconciled(organization_id=world.id, **window)
    assert [(row.verdict, row.computed_at) for row in found] == [
        ("drifts", READ_AT),
        ("alone", READ_AT),
    ]


@pytest.mark.parametrize("content", [whole_day(), openai_page([completions("m", 1, 1)], hour=72)])
def test_a_bill_of_nothing_or_of_the_future_is_refused(world: World, content: bytes) -> None:
    with pytest.raises(BillError, match=r"no line with|has not begun"):
        keep(world, content)


# ------------------------------------------------------------------------------- the command


def test_the_command_reads_a_file_or_stdin(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "may.json"
    file.write_bytes(openai_page([completions(MODEL, 100, 20)]))
    call_command("import_bill", str(file), "--format=json")
    assert capsys.readouterr().out == '{"new":1,"changed":0,"gone":0,"same":0}\n'
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(file.read_bytes())))
    call_command("import_bill", "-", "--format=json", "--provider=azure")
    assert capsys.readouterr().out == '{"new":1,"changed":0,"gone":0,"same":0}\n'
    assert set(BillLine.objects.values_list("provider", "source")) == {
        ("openai", "may.json"),
        ("azure", "-"),
    }


def test_the_command_says_what_is_wrong_with_a_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(
        CommandError, match=r"page.html: a bill is CSV or JSON in UTF-8: this is a web page"
    ):
        call_command("import_bill", str(tmp_path / "page.html"))
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_bill", str(tmp_path / "none.csv"))
