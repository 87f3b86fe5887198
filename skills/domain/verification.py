"""Judge a skill's signature against what the organization trusts at this moment."""

import re
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from enforcement.rules.oms import OmsResult, verify_oms
from skills.domain.roots import enabled_roots
from skills.models import Revocation, Skill, SkillCard

VERDICT_LIFETIME = timedelta(days=1)
_NUMBERS = re.compile(r"v?([0-9]+(?:\.[0-9]+)+)")


def judge(skill: Skill, *, now: datetime) -> OmsResult:
    """Run the verifier over what is stored of a skill. Changes nothing."""
    revoked = Revocation.objects.filter(organization_id=skill.organization_id)
    return verify_oms(
        None if skill.bundle is None else bytes(skill.bundle),
        directory=skill.directory or None,
        front_matter_name=skill.name,
        files={path: entry["sha256"] for path, entry in skill.files.items()},
        roots=enabled_roots(organization_id=skill.organization_id),
        now=now,
        revoked=set(revoked.values_list("value", flat=True)),
        newer=newer_version(skill),
    )


def newer_version(skill: Skill) -> str | None:
    """A carded version of this skill that is later than this one, or None.

    Bundles carry no time, so that age is known from our own cards: content that an older card
    stood for is older than what the latest card stands for. Content that never had a card is
    older if the publisher's own version numbers say so; they are only ever believed against it.
    """
    cards = SkillCard.objects.filter(organization_id=skill.organization_id, name=skill.name)
    latest = cards.select_related("skill").order_by("-card_rev").first()
    if latest is None or latest.root_digest == skill.root_digest:
        return None
    label = latest.skill.upstream_version or latest.root_digest[:16]
    if cards.filter(root_digest=skill.root_digest).exists():
        return f"{label} (card revision {latest.card_rev})"
    mine, theirs = _numbers(skill.upstream_version), _numbers(latest.skill.upstream_version)
    if mine is not None and theirs is not None and mine < theirs:
        return f"{label} (card revision {latest.card_rev})"
    return None


@transaction.atomic
def verify_skill(*, skill: Skill, actor: Actor, now: datetime) -> Skill:
    """Judge a skill anew and keep the verdict; a changed state is audited and pushed."""
    row = Skill.objects.select_for_update().get(pk=skill.pk)
    if update_verdict(row, actor=actor, now=now):
        bump_policy(row.organization_id)
    return row


@transaction.atomic
def verify_all(*, organization_id: UUID, actor: Actor, now: datetime) -> None:
    """Judge every skill of an organization anew, after what it trusts has changed."""
    skills = Skill.objects.select_for_update().filter(organization_id=organization_id)
    changed = [update_verdict(row, actor=actor, now=now) for row in skills.order_by("id")]
    if any(changed):
        bump_policy(organization_id)


def update_verdict(row: Skill, *, actor: Actor, now: datetime) -> bool:
    """Judge a locked row and keep the verdict. True if its state changed: then bump the policy.

    The policy's revision is a row that every change of the organization writes, so it comes
    last in a transaction: whoever holds it waits for nobody.
    """
    before = row.state
    apply_result(row, judge(row, now=now), now=now)
    row.save(update_fields=VERDICT_FIELDS)
    if row.state == before:
        return False
    record(
        organization_id=row.organization_id,
        actor=actor,
        action="skill.verify",
        object_kind="skill",
        object_id=str(row.id),
        reason="; ".join(reason["message"] for reason in row.reasons),
        before={"state": before},
        after={"state": row.state},
        now=now,
    )
    return True


def verify_due(*, now: datetime, batch_size: int) -> int:
    """Judge anew whatever was not judged for a day, oldest first; how many that were."""
    stale = Skill.objects.filter(verified_at__lte=now - VERDICT_LIFETIME, bundle__isnull=False)
    due = list(stale.order_by("verified_at")[:batch_size])
    for skill in due:
        verify_skill(skill=skill, actor=Actor.system("signature check"), now=now)
    return len(due)


VERDICT_FIELDS = [
    "state",
    "reasons",
    "findings",
    "kind",
    "root_fingerprint",
    "root_subject",
    "leaf_subject",
    "leaf_serial",
    "publisher",
    "verified_at",
]


def apply_result(skill: Skill, result: OmsResult, *, now: datetime) -> None:
    """Copy a verdict onto a row, unsaved."""
    skill.state = str(result.state)
    skill.reasons = [{"code": item.code, "message": item.message} for item in result.reasons]
    skill.findings = _findings(result)
    skill.kind = result.kind
    skill.root_fingerprint = result.root_fingerprint
    skill.root_subject = result.root_subject[:500]
    skill.leaf_subject = result.leaf_subject[:500]
    skill.leaf_serial = result.leaf_serial[:64]
    skill.publisher = _organization_of(result.leaf_subject)[:200]
    skill.verified_at = now


def _findings(result: OmsResult) -> dict[str, Any]:
    lists = {
        "drifted": result.drifted,
        "missing": result.missing,
        "extra": result.extra,
        "unsigned_ignored": result.unsigned_ignored,
    }
    return {name: list(paths) for name, paths in lists.items() if paths}


def _organization_of(subject: str) -> str:
    found = re.search(r"(?:^|,)O=((?:[^,\\]|\\.)+)", subject)
    return found[1].replace("\\", "") if found else ""


def _numbers(version: str) -> tuple[int, ...] | None:
    """The leading dotted numbers of a version; None when there are none to compare."""
    found = _NUMBERS.match(version)
    return tuple(int(part[:9]) for part in found[1].split(".")) if found else None
