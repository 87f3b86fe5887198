"""Take a skill folder in: read it safely, judge its signature, keep its digests."""

import hashlib
from datetime import datetime
from pathlib import Path
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from enforcement.rules.oms import OmsState, manifest_digest, root_digest
from skills.domain.folders import Folder, read_archive, read_directory
from skills.domain.front_matter import read_front_matter
from skills.domain.verification import apply_result, judge, verify_skill
from skills.models import Skill


def import_skill(
    *,
    organization_id: UUID,
    archive: bytes | None = None,
    folder: Path | None = None,
    actor: Actor,
    now: datetime,
) -> Skill:
    """Import a skill from a ZIP or a directory.

    The same folder again is the same row, judged anew.

    Raises:
        SkillImportError: the folder breaks a rule; the message names the file.
    """
    if (archive is None) == (folder is None):
        raise ValueError("import_skill takes an archive or a folder")
    read = read_archive(archive) if archive is not None else read_directory(folder or Path())
    return keep_folder(organization_id=organization_id, read=read, actor=actor, now=now)


@transaction.atomic
def keep_folder(*, organization_id: UUID, read: Folder, actor: Actor, now: datetime) -> Skill:
    """Keep what was read of a folder, with the verdict on its signature."""
    front_matter = read_front_matter(read.skill_file)
    digests = {path: entry.sha256 for path, entry in read.files.items()}
    skill = Skill(
        organization_id=organization_id,
        name=front_matter.name,
        directory=(read.directory or "")[:200],
        upstream_version=front_matter.version,
        description=front_matter.description,
        root_digest=root_digest(digests),
        manifest_digest=manifest_digest(digests),
        files={
            path: {"sha256": entry.sha256, "size": entry.size} for path, entry in read.files.items()
        },
        front_matter=front_matter.fields,
        bundle=read.bundle,
        bundle_digest=hashlib.sha256(read.bundle).hexdigest() if read.bundle is not None else "",
        first_seen_at=now,
        state=OmsState.UNSIGNED,
        verified_at=now,
    )
    known = Skill.objects.filter(
        organization_id=organization_id,
        name=skill.name,
        directory=skill.directory,
        manifest_digest=skill.manifest_digest,
        bundle_digest=skill.bundle_digest,
    ).first()
    if known is not None:
        return verify_skill(skill=known, actor=actor, now=now)
    apply_result(skill, judge(skill, now=now), now=now)
    skill.save(force_insert=True)
    record(
        organization_id=organization_id,
        actor=actor,
        action="skill.import",
        object_kind="skill",
        object_id=str(skill.id),
        reason="",
        before=None,
        after={"name": skill.name, "root_digest": skill.root_digest, "state": skill.state},
        now=now,
    )
    return skill
