"""Tasks are thin and may run twice; beat knows them by name."""

from collections.abc import Callable

import pytest

from controlplane.celery import BEAT_SCHEDULE
from skills.models import Skill
from skills.tasks import verify_signatures


@pytest.mark.usefixtures("trusted_root")
def test_signatures_are_judged_again(import_files: Callable[..., Skill]) -> None:
    skill = import_files()
    Skill.objects.update(verified_at="2020-01-01T00:00:00Z")

    verify_signatures()
    skill.refresh_from_db()
    first = skill.verified_at
    verify_signatures()
    skill.refresh_from_db()

    assert first.year >= 2026
    assert skill.verified_at == first


def test_beat_knows_the_task() -> None:
    assert "skills.verify_signatures" in {str(entry["task"]) for entry in BEAT_SCHEDULE.values()}
