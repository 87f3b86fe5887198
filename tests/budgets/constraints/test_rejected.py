"""What was said and cannot be true is kept as it was said."""

import hashlib
from typing import Any
from uuid import uuid4

import pytest

from budgets.domain.rejected import astray
from budgets.models import RejectedEvent
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW, World


def rejected(world: World, **changes: Any) -> RejectedEvent:
    values: dict[str, Any] = {
        "organization_id": world.id,
        "spool": uuid4(),
        "reason": "a count is negative",
        "document": "{}",
        "size_bytes": 2,
        "digest": hashlib.sha256(b"{}").digest(),
        "whole": True,
        "received_at": NOW,
    }
    return RejectedEvent.objects.create(**values | changes)


def test_never_edited(world: World) -> None:
    row = rejected(world)
    with refused_by("rejected_append_only"):
        sql("UPDATE budgets_rejectedevent SET document = '' WHERE id = %s", row.id)
    with refused_by("rejected_append_only"):
        sql("DELETE FROM budgets_rejectedevent WHERE id = %s", row.id)


def test_once_for_each_document(world: World) -> None:
    rejected(world)
    with refused_by("rejected_once_for_each_document"):
        rejected(world)


@pytest.mark.parametrize(
    ("wrong", "guard"),
    [({"reason": ""}, "rejected_says_why"), ({"size_bytes": -1}, "rejected_has_a_size")],
)
def test_it_makes_sense(world: World, wrong: dict[str, Any], guard: str) -> None:
    with refused_by(guard):
        rejected(world, **wrong)


def test_a_document_that_was_changed_is_found(world: World) -> None:
    rejected(world)
    assert astray() == 0
    rejected(world, document='{"id": 1}', digest=b"\x01" * 32)
    assert (astray(), astray(organization_id=uuid4())) == (1, 0)
