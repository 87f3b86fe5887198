"""Signing and revoking cards."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from controlplane.audit.domain import Actor
from controlplane.identity.models import Agent, Organization
from enforcement.rules.cardformat import Capabilities, Caps, CardBudget, ToolCapability
from enforcement.rules.skillcard import verify_card
from skills.domain.cards import revoke_card, signing_key
from skills.domain.grants import grant_card, trusted_keys
from skills.domain.sealing import unseal
from skills.errors import (
    AlreadyRevokedError,
    CardRefusedError,
    NotSignableError,
    SigningKeyError,
)
from skills.models import SigningKey, Skill, SkillCard, SkillGrant
from tests.skills.conftest import actions, version
from tests.skills.publisher import FILES, NOW

Import = Callable[..., Skill]
Sign = Callable[..., SkillCard]
NOW_MS = 1_795_176_000_000


@pytest.mark.usefixtures("trusted_root")
def test_card_verifies_and_says_what_was_signed(
    import_files: Import, sign: Sign, organization: Organization
) -> None:
    skill = import_files()
    budget = CardBudget(per_activation=Caps(usd_nanos=5_000_000_000, tool_calls=20))

    row = sign(skill, budget=budget)

    keys = trusted_keys(organization_id=organization.pk)
    card = verify_card(row.envelope, keys=keys, revoked=[], now_ms=NOW_MS)
    assert (card.digest, card.root_digest, card.rev) == (row.digest, skill.root_digest, 1)
    assert (card.tools, card.budget) == (["Read", "Bash"], budget)
    assert card.body.skill.manifest_sha256 == skill.manifest_digest
    assert (card.body.upstream.kind, card.body.upstream.state) == ("oms-x509", "verified")
    assert card.body.upstream.root_fpr == skill.root_fingerprint
    assert [approval.by for approval in card.body.approvals] == ["alice@example.com"]
    assert actions(organization)[-1] == "skill_card.sign"


def test_unsigned_skill_can_have_a_card(import_files: Import, sign: Sign) -> None:
    card = sign(import_files(signed=False))

    assert (card.card_rev, card.state) == (1, "active")


def test_skill_of_an_unknown_root_cannot(import_files: Import, sign: Sign) -> None:
    with pytest.raises(NotSignableError, match="wrong root: no trust root is switched on"):
        sign(import_files())

    assert SkillCard.objects.count() == 0


def test_next_card_supersedes_and_names_the_one_before(
    import_files: Import, sign: Sign, organization: Organization
) -> None:
    skill = import_files(signed=False)
    first, second = sign(skill), sign(skill)

    first.refresh_from_db()
    keys = trusted_keys(organization_id=organization.pk)
    card = verify_card(second.envelope, keys=keys, revoked=[], now_ms=NOW_MS)
    assert (first.state, second.state, second.card_rev) == ("superseded", "active", 2)
    assert card.body.supersedes == f"sha256:{first.digest}"


def test_revision_goes_on_after_a_revoked_card(
    import_files: Import, sign: Sign, actor: Actor
) -> None:
    skill = import_files(signed=False)
    revoke_card(card=sign(skill), actor=actor, reason="wrong tools", now=NOW)

    assert sign(skill).card_rev == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": NOW},
        {"expires": NOW - timedelta(days=1)},
        {"not_before": NOW + timedelta(days=31)},
        {"capabilities": Capabilities(tools=[ToolCapability(name="")])},
        {"capabilities": Capabilities(tools=[ToolCapability(name="x" * 201)])},
        {"budget": CardBudget(per_day=Caps(tokens=-1))},
        {"budget": CardBudget(per_day=Caps(usd_nanos=1 << 60))},
    ],
)
def test_cards_that_break_their_own_rules(
    import_files: Import, sign: Sign, changes: dict[str, object]
) -> None:
    skill = import_files(signed=False)

    with pytest.raises(CardRefusedError):
        sign(skill, **changes)

    assert SkillCard.objects.count() == 0


def test_revoked_card_is_final(
    import_files: Import, sign: Sign, actor: Actor, organization: Organization
) -> None:
    card = sign(import_files(signed=False))

    revoked = revoke_card(card=card, actor=actor, reason="leaked", now=NOW)

    assert (revoked.state, revoked.state_reason) == ("revoked", "leaked")
    with pytest.raises(AlreadyRevokedError):
        revoke_card(card=card, actor=actor, reason="again", now=NOW)
    assert actions(organization)[-1] == "skill_card.revoke"


def test_every_change_raises_the_policy_revision(
    import_files: Import, sign: Sign, actor: Actor, organization: Organization
) -> None:
    skill = import_files(signed=False)
    organization.refresh_from_db()
    before = organization.policy_revision

    revoke_card(card=sign(skill), actor=actor, reason="x", now=NOW)

    organization.refresh_from_db()
    assert organization.policy_revision == before + 2


def test_grants_stay_behind_unless_the_signer_carries_them(
    import_files: Import, sign: Sign, agent: Agent, actor: Actor
) -> None:
    skill = import_files(signed=False)
    first = sign(skill)
    grant_card(card=first, agent=agent, tools=["Read", "Bash"], actor=actor, now=NOW)

    second = sign(skill)
    assert live() == [(first.pk, ["Read", "Bash"])]

    third = sign(
        skill, carry_grants=True, capabilities=Capabilities(tools=[ToolCapability(name="Read")])
    )
    assert live() == [(first.pk, ["Read", "Bash"])]  # only the latest card's grants are carried
    assert (second.card_rev, third.card_rev) == (2, 3)


def test_carried_grants_are_narrowed_to_the_new_card(
    import_files: Import, sign: Sign, agent: Agent, actor: Actor
) -> None:
    skill = import_files(signed=False)
    grant_card(card=sign(skill), agent=agent, tools=["Read", "Bash"], actor=actor, now=NOW)

    second = sign(
        skill, carry_grants=True, capabilities=Capabilities(tools=[ToolCapability(name="Read")])
    )

    assert live() == [(second.pk, ["Read"])]


def live() -> list[tuple[object, list[str] | None]]:
    rows = SkillGrant.objects.filter(revoked_at__isnull=True).order_by("id")
    return [(row.card_id, row.tools) for row in rows]


def test_new_version_continues_the_revisions_of_its_name(import_files: Import, sign: Sign) -> None:
    first = sign(import_files(version(FILES, "1.0.0"), signed=False))
    second = sign(import_files(version(FILES, "1.1.0"), signed=False))

    assert (first.card_rev, second.card_rev) == (1, 2)
    assert first.root_digest != second.root_digest


def test_one_key_for_an_organization_and_its_own_for_another(
    organization: Organization, stranger: Organization
) -> None:
    first = signing_key(organization_id=organization.pk, now=NOW)
    again = signing_key(organization_id=organization.pk, now=NOW)
    other = signing_key(organization_id=stranger.pk, now=NOW)

    assert (first.pk == again.pk, first.key_id == other.key_id) == (True, False)


def test_private_key_is_sealed_under_the_secret_and_its_own_id(
    organization: Organization, settings: "object"
) -> None:
    key = signing_key(organization_id=organization.pk, now=NOW)
    sealed = bytes(SigningKey.objects.get(pk=key.pk).sealed_private_key)
    private_key = unseal(sealed, key_id=key.key_id)

    assert private_key.public_key().public_bytes_raw().hex() == key.public_key
    assert private_key.private_bytes_raw() not in sealed
    with pytest.raises(SigningKeyError):
        unseal(sealed, key_id="0" * 64)
    settings.SECRET_KEY = "another-secret"  # type: ignore[attr-defined]
    with pytest.raises(SigningKeyError):
        unseal(sealed, key_id=key.key_id)
