"""Importing folders: verdicts, repeats, rollback."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.audit.domain import Actor
from controlplane.identity.models import Organization
from enforcement.rules.oms import manifest_digest, root_digest
from skills.domain.importing import import_skill
from skills.domain.verification import verify_skill
from skills.errors import SkillImportError
from skills.models import Skill, SkillCard
from tests.skills.conftest import actions, version, zip_of
from tests.skills.publisher import FILES, NOW, Publisher, hash_files, write_skill

Import = Callable[..., Skill]
Sign = Callable[..., SkillCard]


def codes(skill: Skill) -> list[str]:
    return [reason["code"] for reason in skill.reasons]


@pytest.mark.usefixtures("trusted_root")
def test_signed_skill_is_verified(import_files: Import, organization: Organization) -> None:
    skill = import_files()

    assert (skill.name, skill.directory, skill.upstream_version) == (
        "example-skill",
        "example-skill",
        "1.0.0",
    )
    assert (skill.state, skill.reasons, skill.findings) == ("verified", [], {})
    assert skill.publisher == "Example Publisher"
    assert skill.root_digest == root_digest(hash_files(FILES))
    assert skill.manifest_digest == manifest_digest(hash_files(FILES))
    assert skill.files["scripts/hello.sh"]["size"] == len(FILES["scripts/hello.sh"])
    assert actions(organization)[-1] == "skill.import"


def test_nobody_is_trusted_until_a_root_is_switched_on(import_files: Import) -> None:
    skill = import_files()

    assert (skill.state, codes(skill)) == ("wrong_root", ["no_trust_root"])


def test_unsigned_skill(import_files: Import) -> None:
    skill = import_files(signed=False)

    assert (skill.state, skill.kind, codes(skill)) == ("unsigned", "none", ["no_signature"])


@pytest.mark.usefixtures("trusted_root")
def test_drift_names_the_files(
    organization: Organization, publisher: Publisher, actor: Actor
) -> None:
    bundle = publisher.sign("example-skill", FILES)
    changed = FILES | {"scripts/hello.sh": b"rm -rf /", "skill.oms.sig": bundle, ".gitignore": b""}

    skill = import_skill(
        organization_id=organization.pk, archive=zip_of(changed), actor=actor, now=NOW
    )

    assert skill.state == "drifted"
    assert skill.findings == {
        "drifted": ["scripts/hello.sh"],
        "unsigned_ignored": [".gitignore"],
    }


@pytest.mark.usefixtures("trusted_root")
def test_renamed_folder(import_files: Import) -> None:
    skill = import_files(folder="other-skill")

    assert (skill.state, codes(skill)) == ("name_mismatch", ["name_differs_from_directory"])


@pytest.mark.usefixtures("trusted_root")
def test_folder_of_this_machine(
    tmp_path: Path, organization: Organization, publisher: Publisher, actor: Actor
) -> None:
    bundle = publisher.sign("example-skill", FILES)
    folder = write_skill(tmp_path / "example-skill", FILES, bundle)

    skill = import_skill(organization_id=organization.pk, folder=folder, actor=actor, now=NOW)

    assert skill.state == "verified"


@pytest.mark.usefixtures("trusted_root")
def test_same_folder_again_is_the_same_skill(
    organization: Organization, publisher: Publisher, actor: Actor
) -> None:
    archive = zip_of(FILES | {"skill.oms.sig": publisher.sign("example-skill", FILES)})
    first = import_skill(organization_id=organization.pk, archive=archive, actor=actor, now=NOW)
    later = NOW + timedelta(days=1)

    second = import_skill(organization_id=organization.pk, archive=archive, actor=actor, now=later)

    assert (second.pk, second.first_seen_at, second.verified_at) == (first.pk, NOW, later)
    assert Skill.objects.count() == 1


def test_refused_folder_leaves_nothing(organization: Organization, actor: Actor) -> None:
    with pytest.raises(SkillImportError):
        import_skill(
            organization_id=organization.pk, archive=zip_of({"SKILL.md": b""}), actor=actor, now=NOW
        )

    assert (Skill.objects.count(), actions(organization)) == (0, [])


@pytest.mark.usefixtures("trusted_root")
def test_certificate_expires_after_the_import(
    import_files: Import, organization: Organization, actor: Actor
) -> None:
    skill = verify_skill(skill=import_files(), actor=actor, now=datetime(2029, 1, 1, tzinfo=UTC))

    assert (skill.state, codes(skill)) == ("expired", ["certificate_expired"])
    assert actions(organization)[-1] == "skill.verify"


@pytest.mark.usefixtures("trusted_root")
def test_verdicts_older_than_a_day_are_judged_again(import_files: Import) -> None:
    from skills.domain.verification import verify_due

    skill = import_files()
    later = datetime(2029, 1, 1, tzinfo=UTC)

    assert verify_due(now=NOW + timedelta(hours=23), batch_size=10) == 0
    assert verify_due(now=later, batch_size=10) == 1
    assert verify_due(now=later, batch_size=10) == 0
    skill.refresh_from_db()
    assert (skill.state, skill.verified_at) == ("expired", later)


# ---------------------------------------------------------------------------- rollback


@pytest.mark.usefixtures("trusted_root")
def test_lower_version_than_the_carded_one_is_rolled_back(import_files: Import, sign: Sign) -> None:
    sign(import_files(version(FILES, "1.10.0")))

    older = import_files(version(FILES, "1.9.9"))

    assert (older.state, codes(older)) == ("rolled_back", ["newer_known"])
    assert older.reasons[0]["message"].endswith("1.10.0 (card revision 1)")


@pytest.mark.usefixtures("trusted_root")
def test_content_of_an_older_card_is_rolled_back_whatever_it_calls_itself(
    import_files: Import, sign: Sign, actor: Actor
) -> None:
    first = import_files(version(FILES, "9.0.0"))
    sign(first)
    second = import_files(version(FILES, "1.0.0") | {"new.md": b""})
    assert second.state == "rolled_back"  # its number is lower than what has a card
    third = import_files(version(FILES, "9.0.1"))
    sign(third)

    assert verify_skill(skill=first, actor=actor, now=NOW).state == "rolled_back"
    assert verify_skill(skill=third, actor=actor, now=NOW).state == "verified"


@pytest.mark.usefixtures("trusted_root")
@pytest.mark.parametrize("number", ["1.0.0", "main", "abc123"])
def test_versions_that_tell_nothing_are_no_rollback(
    import_files: Import, sign: Sign, number: str
) -> None:
    sign(import_files())

    assert import_files(version(FILES, number) | {"new.md": b""}).state == "verified"
