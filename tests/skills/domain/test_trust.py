"""Trust roots are switched on by people; what is trusted decides every verdict anew."""

from collections.abc import Callable

import pytest

from controlplane.audit.domain import Actor
from controlplane.identity.models import Organization
from skills.domain.requirement import require_cards
from skills.domain.roots import enabled_roots, known_roots
from skills.domain.trust import (
    add_trust_root,
    revoke_artifact,
    switch_trust_root,
)
from skills.enums import RevocationKind
from skills.errors import AlreadyRevokedError, TrustRootError
from skills.models import Skill, TrustRoot
from tests.skills.conftest import actions
from tests.skills.publisher import NOW, PIN, Publisher, make_publisher
from tests.skills.samples import SAMPLES, folders, needs_samples

NVIDIA = "6f1bb875b77aea3fc878a7a3237497235c53657601375c0ef4bdcde69e843782"


def test_shipped_root_is_there_and_off(organization: Organization) -> None:
    roots = known_roots(organization_id=organization.pk)

    assert [(root.fingerprint, root.enabled) for root in roots] == [(NVIDIA, False)]
    assert list(enabled_roots(organization_id=organization.pk)) == []


def test_switching_a_shipped_root_on_copies_it(
    organization: Organization, stranger: Organization, actor: Actor
) -> None:
    shipped = TrustRoot.objects.get(organization=None)

    own = switch_trust_root(
        organization_id=organization.pk,
        trust_root_id=shipped.pk,
        enabled=True,
        actor=actor,
        reason="we use their skills",
        now=NOW,
    )

    shipped.refresh_from_db()
    assert (own.organization_id, own.enabled, shipped.enabled) == (organization.pk, True, False)
    assert known_roots(organization_id=organization.pk) == [own]
    assert known_roots(organization_id=stranger.pk) == [shipped]
    assert len(enabled_roots(organization_id=organization.pk)) == 1
    assert actions(organization) == ["trust_root.enable"]


def test_switching_twice_changes_nothing(organization: Organization, actor: Actor) -> None:
    shipped = TrustRoot.objects.get(organization=None)
    for _ in range(2):
        switch_trust_root(
            organization_id=organization.pk,
            trust_root_id=shipped.pk,
            enabled=True,
            actor=actor,
            now=NOW,
        )

    assert actions(organization) == ["trust_root.enable"]


def test_root_of_another_organization_is_not_found(
    organization: Organization, stranger: Organization, publisher: Publisher, actor: Actor
) -> None:
    foreign = add_trust_root(
        organization_id=stranger.pk,
        name="x",
        pem=publisher.root_pem,
        required_subject=PIN,
        actor=actor,
        now=NOW,
    )

    with pytest.raises(TrustRoot.DoesNotExist):
        switch_trust_root(
            organization_id=organization.pk,
            trust_root_id=foreign.pk,
            enabled=True,
            actor=actor,
            now=NOW,
        )


@pytest.mark.usefixtures("trusted_root")
def test_switching_off_judges_every_skill_anew(
    organization: Organization, import_files: Callable[..., Skill], actor: Actor
) -> None:
    skill = import_files()
    root = TrustRoot.objects.get(organization=organization)
    assert skill.state == "verified"

    switch_trust_root(
        organization_id=organization.pk,
        trust_root_id=root.pk,
        enabled=False,
        actor=actor,
        now=NOW,
    )

    skill.refresh_from_db()
    assert skill.state == "wrong_root"
    assert actions(organization)[-2:] == ["trust_root.disable", "skill.verify"]


@pytest.mark.parametrize(
    ("pem", "pin"),
    [
        ("", PIN),
        ("not a certificate", PIN),
        ("LEAF", PIN),
        ("BOTH", PIN),
        ("ROOT", ""),
        ("ROOT", "Example"),
    ],
)
def test_roots_that_are_refused(
    organization: Organization, publisher: Publisher, actor: Actor, pem: str, pin: str
) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    leaf = publisher.leaf.public_bytes(Encoding.PEM).decode()
    texts = {"LEAF": leaf, "ROOT": publisher.root_pem, "BOTH": publisher.root_pem + leaf}

    with pytest.raises(TrustRootError):
        add_trust_root(
            organization_id=organization.pk,
            name="x",
            pem=texts.get(pem, pem),
            required_subject=pin,
            actor=actor,
            now=NOW,
        )


@pytest.mark.usefixtures("trusted_root")
def test_same_root_twice(organization: Organization, publisher: Publisher, actor: Actor) -> None:
    with pytest.raises(TrustRootError, match="already"):
        add_trust_root(
            organization_id=organization.pk,
            name="again",
            pem=publisher.root_pem,
            required_subject=PIN,
            actor=actor,
            now=NOW,
        )


def test_new_root_is_off_and_has_no_end_before_9999(
    organization: Organization, actor: Actor
) -> None:
    root = add_trust_root(
        organization_id=organization.pk,
        name="x",
        pem=make_publisher().root_pem,
        required_subject=PIN,
        actor=actor,
        now=NOW,
    )

    assert (root.enabled, root.not_after) == (False, None)


@pytest.mark.usefixtures("trusted_root")
@pytest.mark.parametrize("kind", list(RevocationKind))
def test_revoked_content_or_certificate(
    organization: Organization,
    import_files: Callable[..., Skill],
    actor: Actor,
    kind: RevocationKind,
) -> None:
    skill = import_files()
    value = skill.root_digest if kind == RevocationKind.DIGEST else skill.leaf_serial.upper()
    arguments = {"organization_id": organization.pk, "kind": kind, "value": value, "now": NOW}

    revoke_artifact(**arguments, actor=actor, reason="leaked")  # type: ignore[arg-type]

    skill.refresh_from_db()
    assert skill.state == "revoked"
    with pytest.raises(AlreadyRevokedError):
        revoke_artifact(**arguments, actor=actor, reason="again")  # type: ignore[arg-type]


def test_requirement_is_switched_with_audit(organization: Organization, actor: Actor) -> None:
    for _ in range(2):
        require_cards(organization_id=organization.pk, required=True, actor=actor, now=NOW)

    organization.refresh_from_db()
    assert organization.requires_skill_cards
    assert actions(organization) == ["organization.require_skill_cards"]


@needs_samples
def test_real_skills_are_verified_once_their_root_is_on(
    organization: Organization, actor: Actor
) -> None:
    from skills.domain.importing import import_skill

    folder = folders("verified")[0]
    skill = import_skill(organization_id=organization.pk, folder=folder, actor=actor, now=NOW)
    assert skill.state == "wrong_root"
    shipped = TrustRoot.objects.get(organization=None)
    assert shipped.pem == (SAMPLES / "nv-agent-root-cert.pem").read_text()

    switch_trust_root(
        organization_id=organization.pk,
        trust_root_id=shipped.pk,
        enabled=True,
        actor=actor,
        now=NOW,
    )

    skill.refresh_from_db()
    assert (skill.state, skill.publisher) == ("verified", "NVIDIA Corporation")


@needs_samples
def test_real_rollback(
    organization: Organization, actor: Actor, sign: Callable[..., object]
) -> None:
    from skills.domain.importing import import_skill

    shipped = TrustRoot.objects.get(organization=None)
    switch_trust_root(
        organization_id=organization.pk,
        trust_root_id=shipped.pk,
        enabled=True,
        actor=actor,
        now=NOW,
    )
    states = []
    for kind in ("rollback/current", "rollback/older"):
        skill = import_skill(
            organization_id=organization.pk, folder=folders(kind)[0], actor=actor, now=NOW
        )
        states.append(skill.state)
        if skill.state == "verified":
            sign(skill)

    assert states == ["verified", "rolled_back"]
