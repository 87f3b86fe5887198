"""The README's table of invariants is true: each name exists, and a test attacks it with SQL."""

import re
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).parents[2]
ATTACKS = "\n".join(
    path.read_text() for path in (ROOT / "tests/budgets/constraints").glob("test_*.py")
)
README = (ROOT / "budgets/README.md").read_text()
TABLE = [line for line in README.splitlines() if line.startswith("| ") and "Held by" not in line]
NAMES = sorted({name for line in TABLE for name in re.findall(r"`([a-z]+_[a-z_]+)`", line)})
NOT_CONSTRAINTS = {"verify_ledger"}
RAISED = re.compile(r"CONSTRAINT = '([a-z_]+)'")


@pytest.fixture(scope="module")
def known(django_db_setup: None, django_db_blocker: pytest.FixtureRequest) -> set[str]:
    """Constraints, triggers, and the names that trigger functions give to what they refuse."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute(
            "SELECT conname FROM pg_constraint UNION SELECT indexname FROM pg_indexes"
            " UNION SELECT tgname FROM pg_trigger"
        )
        names = {str(name) for (name,) in cursor.fetchall()}
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname LIKE 'budgets_%%'")
        for (source,) in cursor.fetchall():
            names.update(RAISED.findall(source))
    return names


def test_there_are_names() -> None:
    assert len(NAMES) >= 25


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_CONSTRAINTS))
def test_a_named_guard_exists_and_is_attacked(name: str, known: set[str]) -> None:
    assert name in known
    assert f'"{name}"' in ATTACKS
