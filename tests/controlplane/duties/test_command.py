"""`comptroller tasks`, as the management command behind it answers."""

import json
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from controlplane.audit.models import AuditEntry
from controlplane.cli.output import Exit
from controlplane.duties.domain.letters import bury
from controlplane.duties.domain.parcels import EMPTY, UNTOLD
from controlplane.duties.enums import LetterState
from controlplane.duties.models import DeadLetter, Duty
from tests.controlplane.world import World

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    call_command("work_on_tasks", *words, "--format=json", stdout=StringIO())
    return json.loads(capsys.readouterr().out)


def refused(*words: str) -> tuple[str, int]:
    with pytest.raises(CommandError) as raised:
        call_command("work_on_tasks", *words, "--format=json")
    return str(raised.value), raised.value.returncode


def dead(task: str = "sweep") -> DeadLetter:
    bury(task, EMPTY, error="builtins.ValueError", attempts=5, now=NOW)
    return DeadLetter.objects.get(task=task, state=LetterState.DEAD)


@pytest.mark.django_db
def test_what_there_is_not_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list") == []
    assert run(capsys, "dead") == []


@pytest.mark.django_db
def test_duties_and_letters_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    Duty.objects.create(name="sweep", due_at=NOW, runs=7, failures=5, last_ms=12)
    letter = dead()
    assert run(capsys, "list") == [
        {
            "task": "sweep",
            "due_at": NOW.isoformat(),
            "started_at": None,
            "last_ms": 12,
            "runs": 7,
            "failures": 5,
            "attempts": 0,
        }
    ]
    (told,) = run(capsys, "dead")
    assert (told["id"], told["error"]) == (str(letter.pk), "builtins.ValueError")


def test_to_retry_and_to_dismiss_is_audited(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    Duty.objects.create(name="sweep", due_at=NOW)
    where = f"--organization={world.organization.slug}"
    for verb, state in (("retry", "retried"), ("dismiss", "dismissed")):
        letter = dead()
        done = run(capsys, verb, str(letter.pk), "--reason=it is back", where)
        assert done == {"id": str(letter.pk), "task": "sweep", "state": state}
        entry = AuditEntry.objects.get(object_id=str(letter.pk))
        assert (entry.action, entry.reason) == (f"letter.{state}", "it is back")


def test_each_refusal_has_its_exit_code(world: World) -> None:
    letter = str(dead().pk)
    bury("unknown", UNTOLD, error="e", attempts=1, now=NOW)
    untold = str(DeadLetter.objects.get(task="unknown").pk)
    why, where = "--reason=x", f"--organization={world.organization.slug}"
    assert refused("retry", letter, where)[1] == Exit.USAGE
    assert refused("retry", "1; DROP TABLE", why, where)[1] == Exit.USAGE
    assert refused("retry", letter, why, "--organization=nobody")[1] == Exit.NOT_FOUND
    assert refused("retry", str(uuid4()), why, where)[1] == Exit.NOT_FOUND
    words, code = refused("retry", untold, why, where)
    assert (words, code) == (
        "its arguments were not kept: it can only be dismissed",
        Exit.CONFLICT,
    )
