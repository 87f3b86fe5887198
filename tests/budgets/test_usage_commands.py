"""`comptroller usage`, as the installation runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from budgets.domain.rollups import fold_usage
from tests.budgets.api.test_usage import RANGE, book
from tests.budgets.world import NOW, World


def asked(capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    call_command("query_usage", **RANGE | options)
    return capsys.readouterr().out


@pytest.fixture
def used(world: World) -> World:
    book(world, model="dear", charge_nanos=9)
    book(world, model="cheap", charge_nanos=1)
    fold_usage(now=NOW)
    return world


def test_groups_are_a_table_with_its_total(used: World, capsys: pytest.CaptureFixture[str]) -> None:
    lines = asked(capsys, group_by="agent,model", format="agent").splitlines()
    assert [line.split("\t")[:3] for line in lines] == [
        ["agent", "model", "calls"],
        [used.agent.name, "dear", "1"],
        [used.agent.name, "cheap", "1"],
        ["total", "-", "2"],
    ]
    assert lines[-1].endswith("\t0.00000001")


def test_as_json_it_is_what_the_api_says(used: World, capsys: pytest.CaptureFixture[str]) -> None:
    body = json.loads(asked(capsys, group_by="model", filter=["model=dear"], format="json"))
    assert [group["key"] for group in body["groups"]] == [{"model": "dear"}]


def test_without_groupings_there_is_the_total(
    used: World, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = asked(capsys, group_by="", format="agent").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["calls", "2"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group_by": "mood"}, "group_by: nothing is told apart by 'mood'"),
        ({"filter": ["agent=nobody"]}, "filter: no agent 'nobody'"),
        ({"since": "soon"}, "since: Date has wrong format"),
        ({"organization": "nobody"}, "no such organization"),
    ],
)
def test_what_is_wrong_is_said(world: World, options: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("query_usage", **RANGE | options)


def test_an_export_is_written_to_a_file(used: World, tmp_path: Path) -> None:
    file = tmp_path / "focus.csv"
    call_command("export_usage", file=str(file), **RANGE)
    lines = file.read_text().splitlines()
    assert (len(lines), lines[0].split(",")[0]) == (3, "BilledCost")
    with pytest.raises(CommandError, match="'soon' is no day"):
        call_command("export_usage", since="soon")
    with pytest.raises(CommandError, match="since: must be before until"):
        call_command("export_usage", since="2026-05-02", until="2026-05-02")


def test_a_file_is_written_whole_or_not_at_all(
    used: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "focus.csv"
    options = {"since": RANGE["since"], "until": RANGE["until"], "file": str(path)}
    call_command("export_usage", **options)
    whole = path.read_bytes()
    with pytest.raises(CommandError, match="No such file or directory"):
        call_command("export_usage", **options | {"file": str(tmp_path / "none" / "x.csv")})
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(Path, "open", lambda *_: full)
        with pytest.raises(CommandError, match="No space left on device"):
            call_command("export_usage", **options)
        monkeypatch.undo()
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
