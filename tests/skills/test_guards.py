"""What the database refuses, whatever Python believes: every test writes around the domain."""

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection, transaction

from controlplane.audit.domain import Actor
from controlplane.identity.models import Agent, Organization
from skills.domain.grants import grant_card
from skills.domain.trust import revoke_artifact
from skills.enums import RevocationKind
from skills.models import Skill, SkillCard, SkillGrant, TrustRoot
from tests.skills.publisher import NOW

Import = Callable[..., Skill]
Sign = Callable[..., SkillCard]


def refused(statement: str, *parameters: object) -> str:
    with pytest.raises(IntegrityError) as caught, transaction.atomic(), connection.cursor() as sql:
        sql.execute(statement, parameters)
    return str(caught.value).splitlines()[0]


@pytest.fixture
def card(import_files: Import, sign: Sign) -> SkillCard:
    return sign(import_files(signed=False))


@pytest.mark.parametrize("column", ["name", "root_digest", "manifest_digest", "directory"])
def test_content_of_a_skill_never_changes(card: SkillCard, column: str) -> None:
    assert refused(f"UPDATE skills_skill SET {column} = repeat('0', 64)") == (
        "the content of a skill never changes"
    )


def test_files_of_a_skill_never_change(card: SkillCard) -> None:
    assert "never changes" in refused("UPDATE skills_skill SET files = '{}'")


@pytest.mark.parametrize("table", ["skills_skill", "skills_skillcard", "skills_skillgrant"])
def test_rows_are_never_deleted(card: SkillCard, agent: Agent, actor: Actor, table: str) -> None:
    grant_card(card=card, agent=agent, actor=actor, now=NOW)

    assert refused(f"DELETE FROM {table}") == f"DELETE rows of {table} are refused"


@pytest.mark.parametrize("column", ["envelope", "digest", "root_digest", "name", "created_by"])
def test_signed_card_never_changes(card: SkillCard, column: str) -> None:
    sentence = refused(f"UPDATE skills_skillcard SET {column} = repeat('0', 64), state = 'revoked'")

    assert sentence == "a signed card never changes"


def test_card_does_not_live_again(card: SkillCard) -> None:
    with connection.cursor() as sql:
        sql.execute("UPDATE skills_skillcard SET state = 'revoked'")

    for state in ("active", "superseded", "revoked"):
        sentence = refused("UPDATE skills_skillcard SET state = %s", state)
        assert sentence == f"a card does not go from revoked to {state}"


@pytest.mark.parametrize("revision", [1, 3])
def test_revisions_rise_by_one(card: SkillCard, revision: int) -> None:
    copy = SkillCard.objects.get(pk=card.pk)
    copy.pk = None
    copy.id = type(copy)._meta.get_field("id").get_default()
    copy.digest, copy.card_rev, copy.state = "0" * 64, revision, "superseded"

    with pytest.raises(IntegrityError, match=f"card revision {revision} does not follow 1"):
        copy.save(force_insert=True)


def test_grant_is_revoked_once_and_never_edited(
    card: SkillCard, agent: Agent, actor: Actor
) -> None:
    grant_card(card=card, agent=agent, tools=["Read"], actor=actor, now=NOW)
    sentence = "a grant can only be revoked, once"

    assert refused("UPDATE skills_skillgrant SET tools = NULL") == sentence
    assert refused("UPDATE skills_skillgrant SET tools = NULL, revoked_at = now()") == sentence
    SkillGrant.objects.update(revoked_at=NOW)
    assert refused("UPDATE skills_skillgrant SET revoked_at = NULL") == sentence
    assert refused("UPDATE skills_skillgrant SET revoke_reason = 'x'") == sentence


def test_shipped_root_cannot_be_switched_on(organization: Organization) -> None:
    sentence = refused("UPDATE skills_trustroot SET enabled = true")

    assert "trust_root_shipped_is_off" in sentence
    assert not TrustRoot.objects.get().enabled


def test_revocations_are_final(organization: Organization, actor: Actor) -> None:
    revoke_artifact(
        organization_id=organization.pk,
        kind=RevocationKind.SERIAL,
        value="ab",
        actor=actor,
        reason="x",
        now=NOW,
    )

    assert (
        refused("DELETE FROM skills_revocation") == "DELETE rows of skills_revocation are refused"
    )
    assert "refused" in refused("UPDATE skills_revocation SET value = 'cd'")


def test_two_keys_in_use_are_one_too_many(card: SkillCard) -> None:
    statement = (
        "INSERT INTO skills_signingkey (id, organization_id, key_id, public_key,"
        " sealed_private_key, created_at) SELECT gen_random_uuid(), organization_id,"
        " 'other', public_key, sealed_private_key, created_at FROM skills_signingkey"
    )

    assert "signing_key_one_in_use" in refused(statement)
