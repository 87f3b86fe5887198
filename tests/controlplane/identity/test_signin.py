"""Signing in: links that work once, passwords that cannot be guessed at leisure."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from controlplane.audit.models import AuditEntry
from controlplane.identity import domain
from controlplane.identity.domain.signin import LINK_LIFETIME, person_of_link
from controlplane.identity.enums import Role
from controlplane.identity.errors import (
    CredentialError,
    ForeignPersonError,
    OwnersOnlyError,
    SignInError,
    TooManyAttemptsError,
)
from controlplane.identity.models import Person, SignInAttempt, SignInLink
from tests.controlplane.world import ACTOR, NOW, World, make_world

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _quick_hashes(settings: Any) -> None:
    """Guesses by the dozen: the real hash takes a third of a second each."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def person(world: World) -> Person:
    return domain.set_password(
        person_id=world.people["owner"].pk, password=PASSWORD, actor=ACTOR, now=NOW
    )


def sign_in(
    password: str = PASSWORD,
    *,
    email: str = "owner@acme.example",
    address: str = "192.0.2.1",
    minutes: int = 0,
) -> Person:
    now = NOW + timedelta(minutes=minutes)
    return domain.sign_in_with_password(email=email, password=password, address=address, now=now)


def fail(times: int, **where: str) -> None:
    for _ in range(times):
        with pytest.raises(SignInError):
            sign_in("wrong", **where)


def test_a_link_works_once(world: World) -> None:
    person = world.people["viewer"]
    secret = domain.make_sign_in_link(person_id=person.pk, now=NOW)
    assert person_of_link(secret, now=NOW) == person
    assert domain.use_sign_in_link(secret, now=NOW) == person
    for use in (domain.use_sign_in_link, person_of_link):
        with pytest.raises(CredentialError, match="used before"):
            use(secret, now=NOW)
    assert AuditEntry.objects.get(action="person.sign_in").reason == "one-time link"


def test_a_links_window_is_half_open(world: World) -> None:
    secret = domain.make_sign_in_link(person_id=world.people["viewer"].pk, now=NOW)
    end = NOW + LINK_LIFETIME
    with pytest.raises(CredentialError, match="expired"):
        domain.use_sign_in_link(secret, now=end)
    domain.use_sign_in_link(secret, now=end - timedelta(microseconds=1))


@pytest.mark.parametrize("secret", ["", "x", "é" * 100, "\x00"])
def test_an_unknown_link_is_refused(world: World, secret: str) -> None:
    with pytest.raises(CredentialError, match="not known"):
        domain.use_sign_in_link(secret, now=NOW)


def test_a_deactivated_person_cannot_use_a_link(world: World) -> None:
    person = world.people["viewer"]
    secret = domain.make_sign_in_link(person_id=person.pk, now=NOW)
    Person.objects.filter(pk=person.pk).update(is_active=False)
    with pytest.raises(CredentialError, match="deactivated"):
        domain.use_sign_in_link(secret, now=NOW)


def test_only_the_hash_of_a_link_is_stored(world: World) -> None:
    secret = domain.make_sign_in_link(person_id=world.people["viewer"].pk, now=NOW)
    link = SignInLink.objects.get()
    assert secret not in link.token_hash
    assert len(link.token_hash) == 64


def test_who_may_invite_whom(world: World, stranger: World) -> None:
    owner, viewer = world.people["owner"], world.people["viewer"]
    domain.invite(person_id=viewer.pk, actor_is_owner=False, **world.who)
    domain.invite(person_id=owner.pk, actor_is_owner=True, **world.who)
    with pytest.raises(OwnersOnlyError):
        domain.invite(person_id=owner.pk, actor_is_owner=False, **world.who)
    domain.add_member(email=viewer.email, role=Role.ADMIN, **stranger.who)
    for one in (world, stranger):
        with pytest.raises(ForeignPersonError):
            domain.invite(person_id=viewer.pk, actor_is_owner=True, **one.who)


def test_the_right_password_signs_in(person: Person) -> None:
    assert sign_in(email=" OWNER@acme.example ") == person
    assert SignInAttempt.objects.count() == 0
    assert AuditEntry.objects.get(action="person.sign_in").reason == "password"


def test_wrong_passwords_and_unknown_people_are_told_alike(person: Person) -> None:
    for email, password in (("owner@acme.example", "wrong"), ("who@acme.example", PASSWORD)):
        with pytest.raises(SignInError, match=r"^The address or the password is wrong\.$"):
            sign_in(password, email=email)
    Person.objects.filter(pk=person.pk).update(is_active=False)
    with pytest.raises(SignInError):
        sign_in()


def test_a_person_without_a_password_has_none(world: World) -> None:
    for password in ("", "!", world.people["viewer"].password):
        with pytest.raises(SignInError):
            sign_in(password, email="viewer@acme.example")


def test_the_sixth_guess_from_one_address_waits(person: Person) -> None:
    fail(5)
    with pytest.raises(TooManyAttemptsError) as caught:
        sign_in()
    assert caught.value.retry_after_s == 15 * 60
    with pytest.raises(TooManyAttemptsError) as caught:
        sign_in(minutes=10)
    assert caught.value.retry_after_s == 5 * 60
    assert sign_in(address="192.0.2.2") == person
    assert sign_in(minutes=15) == person


def test_one_address_cannot_try_many_people(person: Person) -> None:
    for number in range(20):
        fail(1, email=f"p{number}@acme.example")
    with pytest.raises(TooManyAttemptsError):
        sign_in()


def test_success_takes_its_own_try_back_only(person: Person) -> None:
    fail(4)
    sign_in()
    fail(1)
    with pytest.raises(TooManyAttemptsError):
        sign_in()


def test_tries_keep_no_address_of_mail(person: Person) -> None:
    fail(1)
    attempt = SignInAttempt.objects.get()
    assert "acme" not in attempt.email_hash
    assert len(attempt.email_hash) == 64


@pytest.mark.django_db(transaction=True)
def test_guesses_that_race_are_counted_before_they_are_judged() -> None:
    world = make_world()
    domain.set_password(person_id=world.people["owner"].pk, password=PASSWORD, actor=ACTOR, now=NOW)
    barrier, outcomes = threading.Barrier(12), []

    def guess() -> None:
        barrier.wait()
        try:
            sign_in("wrong")
        except (SignInError, TooManyAttemptsError) as error:
            outcomes.append(type(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 12
    assert outcomes.count(SignInError) <= 5
