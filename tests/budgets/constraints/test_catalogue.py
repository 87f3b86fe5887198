"""No guard of the ledger is taken on trust: each one that the database knows is attacked."""

from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).parents[2]
ATTACKS = "\n".join(
    path.read_text()
    for app in ("budgets", "enforcement")
    for path in (ROOT / app / "constraints").glob("test_*.py")
    if path.name != Path(__file__).name
)
# Keys that repeat a primary key, so that others can refer to a row with its organization.
HELPERS = {
    "balance_with_organization",
    "budget_with_organization",
    "lease_with_balance",
    "price_rule_with_organization",
}
# Triggers that refuse under several names of their own: those stand in the README's table.
NAMED_INSIDE = {"balance_guard", "lease_guard"}
GUARDS = """
SELECT conname FROM pg_constraint
WHERE conrelid::regclass::text ~ '^(budgets|enforcement)_'
    AND (contype IN ('c', 'u', 'x') OR conname LIKE '%%_of_same_%%')
UNION
SELECT tgname FROM pg_trigger
WHERE NOT tgisinternal AND tgrelid::regclass::text ~ '^(budgets|enforcement)_'
UNION
SELECT i.indexrelid::regclass::text FROM pg_index i
WHERE i.indisunique AND NOT i.indisprimary
    AND i.indrelid::regclass::text ~ '^(budgets|enforcement)_'
"""


@pytest.mark.django_db
def test_every_guard_of_the_catalogue_is_attacked() -> None:
    with connection.cursor() as cursor:
        cursor.execute(GUARDS)
        guards = {str(name) for (name,) in cursor.fetchall()}
    assert len(guards) > 60
    missing = {name for name in guards if f'"{name}"' not in ATTACKS}
    assert missing == HELPERS | NAMED_INSIDE
