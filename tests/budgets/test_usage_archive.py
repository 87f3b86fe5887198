"""`comptroller usage archive`, `usage find`, the hourly task and the API say where an event stands."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from budgets import tasks
from budgets.domain.archive import due_days
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.models import UsageArchive, UsageEvent
from tests.budgets.world import World, call, ms


@pytest.fixture
def old(world: World) -> str:
    """The id of a folded event of 50 days ago."""
    now = timezone.now()
    event = call(world, started_at_ms=ms(now - timedelta(days=50)), model="old")
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=now)
    fold_usage(now=now)
    return event.id


def told(capsys: pytest.CaptureFixture[str]) -> object:
    return json.loads(capsys.readouterr().out)


def find(event: str, *words: str) -> None:
    call_command("find_usage", event, "--format=json", *words)


def test_by_command(
    world: World, old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--keep-days=49", f"--archive-dir={tmp_path}", "--format=json"]
    find(old)
    before = told(capsys)
    assert isinstance(before, dict)
    assert (before["stands_in"], before["model"]) == ("database", "old")
    call_command("archive_usage", *words, "--dry-run")
    day = datetime.now(tz=UTC).date() - timedelta(days=50)
    assert {"day": str(day)} in told(capsys)  # type: ignore[operator]
    assert not UsageArchive.objects.exists()
    call_command("archive_usage", *words)
    capsys.readouterr()
    row = UsageArchive.objects.get(day=day)
    assert (row.events, UsageEvent.objects.count()) == (1, 0)
    find(old, f"--archive-dir={tmp_path}")
    after = told(capsys)
    assert isinstance(after, dict)
    assert after == before | {
        "stands_in": row.file,
        **{k: after[k] for k in changed(before, after)},
    }
    find(old)
    assert told(capsys) == {"stands_in": row.file, "id": old, "started_at": before["started_at"]}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """JSON is text in a file: the same, written otherwise."""
    assert before.keys() == after.keys()
    return {"tags", "parts"} & {name for name in before if before[name] != after[name]}


@pytest.mark.usefixtures("world")
def test_what_is_asked_wrongly_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="say --keep-days"):
        call_command("archive_usage")
    with pytest.raises(CommandError, match="say --archive-dir"):
        call_command("archive_usage", "--keep-days=40")
    with pytest.raises(CommandError, match="at least 35 days must be kept, not 3"):
        call_command("archive_usage", "--keep-days=3", f"--archive-dir={tmp_path}")
    with pytest.raises(CommandError, match="an id is a UUID"):
        find("x")
    with pytest.raises(CommandError, match="was booked"):
        find(str(uuid4()))


def test_the_task_moves_a_day_when_told_to(
    old: str, tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tasks.archive_usage()
    assert UsageEvent.objects.filter(id=old).exists()
    settings.USAGE_KEEP_DAYS = 49
    tasks.archive_usage()
    assert "COMPTROLLER_USAGE_KEEP_DAYS needs COMPTROLLER_ARCHIVE_DIR" in caplog.text
    settings.ARCHIVE_DIR = "/proc/nowhere"  # where root makes nothing either
    tasks.archive_usage()
    assert "/proc/nowhere cannot be written: " in caplog.text
    settings.ARCHIVE_DIR = str(tmp_path)
    for _ in range(100):
        tasks.archive_usage()
        if not UsageEvent.objects.filter(id=old).exists():
            break
    assert [one.suffix for one in tmp_path.iterdir()] == [".parquet"] * UsageArchive.objects.count()
    assert not UsageEvent.objects.filter(id=old).exists()


def test_a_place_that_is_none_is_told_before_a_day_is_due(
    db: None, tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    settings.USAGE_KEEP_DAYS, settings.ARCHIVE_DIR = 10_000, str(tmp_path / "file")
    tasks.archive_usage()
    assert "usage events were not archived" in caplog.text
    assert f"{tmp_path}/file cannot be written: Not a directory" in caplog.text


def warned() -> bool:
    return "budgets.W001" in {one.id for one in run_checks(include_deployment_checks=True)}


def test_a_place_that_is_none_is_told_by_a_check(settings: Any, tmp_path: Path) -> None:
    assert not warned()
    settings.USAGE_KEEP_DAYS = 40
    assert warned()
    settings.ARCHIVE_DIR = str(tmp_path / "new" / "archive")
    assert not warned()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").write_text("a file where a folder should be")
    assert warned()


def test_days_that_wait_are_told_to_prometheus(old: str, settings: Any) -> None:
    name = "\ncomptroller_usage_days_to_archive "
    assert name not in Client().get("/metrics").content.decode()
    settings.USAGE_KEEP_DAYS = 3  # 35 at least: the newest of the days stays
    days = len(due_days(keep_days=35, now=timezone.now()))
    assert days > 0
    assert f"{name}{days}.0\n" in Client().get("/metrics").content.decode()
