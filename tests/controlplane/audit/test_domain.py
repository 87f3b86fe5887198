"""The audit trail: in the change's transaction, and never changed."""

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from controlplane.audit.domain import Actor, record
from controlplane.audit.errors import UnauditedChangeError
from controlplane.audit.models import AuditEntry
from tests.controlplane.world import NOW, UNKNOWN

FACTS: dict[str, Any] = {
    "organization_id": UNKNOWN,
    "actor": Actor("person", "7", "Olive"),
    "action": "thing.change",
    "object_kind": "thing",
    "object_id": UNKNOWN,
    "now": NOW,
}


@pytest.mark.django_db
def test_an_entry_keeps_everything() -> None:
    record(
        **FACTS, reason="because", before={"limit": 1}, after={"limit": 9_223_372_036_854_775_807}
    )
    entry = AuditEntry.objects.get()
    assert (entry.organization_id, entry.at, entry.object_id) == (UNKNOWN, NOW, str(UNKNOWN))
    assert (entry.actor_kind, entry.actor_id, entry.actor_label) == ("person", "7", "Olive")
    assert (entry.reason, entry.before) == ("because", {"limit": 1})
    assert entry.after == {"limit": 9_223_372_036_854_775_807}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_auditentry SET reason = 'another'",
        "UPDATE audit_auditentry SET id = id + 1",
        "DELETE FROM audit_auditentry",
    ],
)
def test_the_database_refuses_every_change(sql: str) -> None:
    record(**FACTS)
    with (
        pytest.raises(IntegrityError, match="audit_auditentry is append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
    assert AuditEntry.objects.get().reason == ""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "refused_by"),
    [
        ({"actor": Actor("ghost", "", "x")}, "audit_actor_kind_known"),
        ({"actor": Actor.system("")}, "audit_actor_named"),
        ({"action": ""}, "audit_action_named"),
    ],
)
def test_an_entry_without_actor_or_action_is_refused(
    change: dict[str, Any], refused_by: str
) -> None:
    with pytest.raises(IntegrityError, match=refused_by), transaction.atomic():
        record(**FACTS | change)


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_a_transaction_is_our_own_mistake() -> None:
    with pytest.raises(UnauditedChangeError, match=r"^thing\.change: "):
        record(**FACTS)
    assert AuditEntry.objects.count() == 0


@pytest.mark.django_db
def test_long_labels_and_reasons_are_cut() -> None:
    record(**FACTS | {"actor": Actor.system("x" * 300)}, reason="y" * 600)
    entry = AuditEntry.objects.get()
    assert (len(entry.actor_label), len(entry.reason)) == (254, 500)
