"""Two people at once: real connections, real commits."""

import threading
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from controlplane.audit.domain import Actor
from controlplane.identity.models import Agent, Organization
from enforcement.rules.cardformat import CardBudget
from skills.domain.cards import revoke_card, sign_card
from skills.domain.grants import grant_card
from skills.domain.importing import import_skill
from skills.domain.trust import switch_trust_root
from skills.domain.verification import verify_skill
from skills.errors import AlreadyGrantedError, AlreadyRevokedError
from skills.models import SigningKey, Skill, SkillCard, SkillGrant, TrustRoot
from tests.skills.conftest import CAPABILITIES, make_agent, version, zip_of
from tests.skills.publisher import FILES, NOW

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 6
ACTOR = Actor(kind="system", id="", label="race")


@pytest.fixture(autouse=True)
def _shipped_trust_roots() -> None:
    """What the migration ships is flushed by earlier tests that commit."""
    if not TrustRoot.objects.exists():
        import_module("skills.migrations.0003_ship_trust_roots").ship(apps, None)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run all works at the same moment; each gives its result or its exception."""
    barrier = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(place: int, work: Callable[[], Any]) -> None:
        try:
            barrier.wait(10)
            results[place] = work()
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            results[place] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.fixture
def organization(transactional_db: None) -> Organization:
    return Organization.objects.create(slug="acme", name="Acme", created_at=NOW)


@pytest.fixture
def skill(organization: Organization) -> Skill:
    return imported(organization, FILES)


def imported(organization: Organization, files: dict[str, bytes]) -> Skill:
    return import_skill(
        organization_id=organization.pk, archive=zip_of(files), actor=ACTOR, now=NOW
    )


def signing(skill: Skill) -> SkillCard:
    return sign_card(
        skill=skill,
        capabilities=CAPABILITIES,
        budget=CardBudget(),
        expires=NOW + timedelta(days=1),
        actor=ACTOR,
        now=NOW,
    )


@pytest.fixture
def agent(organization: Organization) -> Agent:
    return make_agent(organization, "writer")


def test_signers_at_once_take_turns(skill: Skill) -> None:
    results = at_once(*[lambda: signing(skill)] * THREADS)

    assert sorted(card.card_rev for card in results) == list(range(1, THREADS + 1))
    assert SigningKey.objects.count() == 1
    assert SkillCard.objects.filter(state="active").count() == 1


def test_grants_at_once_are_one(skill: Skill, agent: Agent) -> None:
    card = signing(skill)

    results = at_once(*[lambda: grant_card(card=card, agent=agent, actor=ACTOR, now=NOW)] * THREADS)

    errors = [result for result in results if isinstance(result, AlreadyGrantedError)]
    assert (len(errors), SkillGrant.objects.count()) == (THREADS - 1, 1)


def test_revocations_at_once_are_one(skill: Skill) -> None:
    card = signing(skill)

    results = at_once(*[lambda: revoke_card(card=card, actor=ACTOR, reason="x", now=NOW)] * THREADS)

    errors = [result for result in results if isinstance(result, AlreadyRevokedError)]
    assert len(errors) == THREADS - 1


def test_changes_of_trust_wait_for_each_other_without_deadlock(
    organization: Organization, skill: Skill
) -> None:
    root = TrustRoot.objects.get(organization=None)
    skills = [skill, *(imported(organization, version(FILES, f"2.{n}.0")) for n in range(3))]

    def switch(*, enabled: bool) -> Callable[[], Any]:
        return lambda: switch_trust_root(
            organization_id=organization.pk,
            trust_root_id=root.pk,
            enabled=enabled,
            actor=ACTOR,
            now=NOW,
        )

    works = [switch(enabled=True), switch(enabled=False)]
    works += [lambda row=row: verify_skill(skill=row, actor=ACTOR, now=NOW) for row in skills]  # type: ignore[misc]
    works += [lambda: signing(skill)]

    assert [result for result in at_once(*works) if isinstance(result, Exception)] == []
