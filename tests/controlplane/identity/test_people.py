"""Members: the rules that both pages and API stand on."""

import threading
from uuid import UUID

import pytest
from django.db import connection, transaction

from controlplane.audit.models import AuditEntry
from controlplane.identity import domain
from controlplane.identity.enums import Role
from controlplane.identity.errors import IdentityValidationError, LastOwnerError
from controlplane.identity.models import Membership, Person
from tests.controlplane.world import ACTOR, NOW, World, make_world


def test_adding_a_member_again_in_the_same_role_changes_nothing(world: World) -> None:
    entries = AuditEntry.objects.count()
    again = domain.add_member(email="OWNER@acme.example", role=Role.OWNER, **world.who)
    assert again.person == world.people["owner"]
    assert AuditEntry.objects.count() == entries


@pytest.mark.parametrize("email", ["", "x", "x@", "x@y z", "x@example.com\nBcc: y@example.com"])
def test_a_wrong_address_is_refused(world: World, email: str) -> None:
    with pytest.raises(IdentityValidationError) as caught:
        domain.add_member(email=email, role=Role.VIEWER, **world.who)
    assert caught.value.field == "email"


@pytest.mark.parametrize("password", ["short", "password1234", "owner@acme.example"])
def test_a_weak_password_is_refused(world: World, password: str) -> None:
    with pytest.raises(IdentityValidationError) as caught:
        domain.set_password(
            person_id=world.people["owner"].pk, password=password, actor=ACTOR, now=NOW
        )
    assert caught.value.field == "password"


def test_a_new_password_is_audited_without_itself(world: World) -> None:
    domain.set_password(
        person_id=world.people["owner"].pk, password="correct horse", actor=ACTOR, now=NOW
    )
    entry = AuditEntry.objects.get(action="person.password")
    assert (entry.before, entry.after) == (None, None)


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_leave_at_once_leave_one() -> None:
    world = make_world()
    second = domain.add_member(email="b@acme.example", role=Role.OWNER, **world.who).person
    barrier, outcomes = threading.Barrier(2), []

    def leave(person_id: UUID) -> None:
        barrier.wait()
        try:
            domain.remove_member(person_id=person_id, **world.who)
            outcomes.append("left")
        except LastOwnerError:
            outcomes.append("stayed")
        finally:
            connection.close()

    leavers = [
        threading.Thread(target=leave, args=(person.pk,))
        for person in (world.people["owner"], second)
    ]
    for thread in leavers:
        thread.start()
    for thread in leavers:
        thread.join(20)
    assert sorted(outcomes) == ["left", "stayed"]
    assert Membership.objects.filter(organization=world.organization, role="owner").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_failed_change_leaves_no_audit_entry() -> None:
    world = make_world()
    entries = AuditEntry.objects.count()
    with pytest.raises(LastOwnerError):
        exchange_badly(world)
    assert AuditEntry.objects.count() == entries
    assert Person.objects.filter(email="b@acme.example").count() == 0


@transaction.atomic
def exchange_badly(world: World) -> None:
    domain.add_member(email="b@acme.example", role=Role.ADMIN, **world.who)
    domain.remove_member(person_id=world.people["owner"].pk, **world.who)
