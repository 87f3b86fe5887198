"""Organizations, teams and projects."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import available_timezones

from django.db import IntegrityError, models, transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain.policy import bump_policy
from controlplane.identity.errors import (
    IdentityValidationError,
    NotFoundInOrganizationError,
    SlugTakenError,
)
from controlplane.identity.models import Organization, Project, Team
from controlplane.identity.models.organization import SLUG_PATTERN

Owned = TypeVar("Owned", bound=models.Model)
Unit = TypeVar("Unit", Team, Project)
NAME_CHARS = 200
_SLUG = re.compile(SLUG_PATTERN, re.ASCII)


@transaction.atomic
def create_organization(
    *, slug: str, name: str, actor: Actor, now: datetime, time_zone: str = "UTC"
) -> Organization:
    """Raises SlugTakenError, IdentityValidationError."""
    check_time_zone(time_zone)
    organization = Organization(
        slug=slug, name=checked_name(name), time_zone=time_zone, created_at=now
    )
    save_new(organization, slug)
    _record(organization.pk, organization, "organization.create", actor, now)
    return organization


@transaction.atomic
def change_organization(
    *, organization_id: UUID, changes: Mapping[str, str], actor: Actor, now: datetime
) -> Organization:
    """Change `name` or `time_zone`. Raises IdentityValidationError."""
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    check_known(changes, {"name", "time_zone"})
    before = {name: getattr(organization, name) for name in changes}
    if "name" in changes:
        organization.name = checked_name(changes["name"])
    if "time_zone" in changes:
        check_time_zone(changes["time_zone"])
        organization.time_zone = changes["time_zone"]
    organization.save(update_fields=list(changes))
    after = {name: getattr(organization, name) for name in changes}
    record(
        organization_id=organization_id,
        actor=actor,
        action="organization.change",
        object_kind="organization",
        object_id=organization_id,
        before=before,
        after=after,
        now=now,
    )
    return organization


@transaction.atomic
def create_team(
    *, organization_id: UUID, slug: str, name: str, actor: Actor, now: datetime
) -> Team:
    """Raises SlugTakenError, IdentityValidationError."""
    team = Team(organization_id=organization_id, slug=slug, name=checked_name(name), created_at=now)
    save_new(team, slug)
    _record(organization_id, team, "team.create", actor, now)
    bump_policy(organization_id)
    return team


@transaction.atomic
def create_project(
    *,
    organization_id: UUID,
    slug: str,
    name: str,
    actor: Actor,
    now: datetime,
    team_id: UUID | None = None,
) -> Project:
    """Raises SlugTakenError, IdentityValidationError."""
    if team_id is not None:
        check_place(Team, organization_id=organization_id, object_id=team_id, field="team")
    project = Project(
        organization_id=organization_id,
        team_id=team_id,
        slug=slug,
        name=checked_name(name),
        created_at=now,
    )
    save_new(project, slug)
    _record(organization_id, project, "project.create", actor, now)
    bump_policy(organization_id)
    return project


@transaction.atomic
def rename(
    model: type[Unit],
    *,
    organization_id: UUID,
    object_id: UUID,
    name: str,
    actor: Actor,
    now: datetime,
) -> Unit:
    """Change the name of a team or project; slugs stay. Raises NotFoundInOrganizationError."""
    row = find(model, organization_id=organization_id, object_id=object_id, lock=True)
    before = {"name": row.name}
    row.name = checked_name(name)
    row.save(update_fields=["name"])
    kind = model._meta.model_name or ""  # noqa: SLF001 -- Django's public name for it
    record(
        organization_id=organization_id,
        actor=actor,
        action=f"{kind}.change",
        object_kind=kind,
        object_id=row.pk,
        before=before,
        after={"name": row.name},
        now=now,
    )
    return row


def find(
    model: type[Owned], *, organization_id: UUID, object_id: UUID, lock: bool = False
) -> Owned:
    """An object of this organization; a foreign one is as unknown as one that never was.

    Raises NotFoundInOrganizationError.
    """
    rows = model._default_manager.filter(  # noqa: SLF001 -- Django's public name for it
        pk=object_id, organization_id=organization_id
    )
    found = (rows.select_for_update(no_key=True) if lock else rows).first()
    if found is None:
        raise NotFoundInOrganizationError(f"no {model._meta.verbose_name} {object_id}")  # noqa: SLF001
    return found


def check_place(model: type[Owned], *, organization_id: UUID, object_id: UUID, field: str) -> Owned:
    """An object that another one is to refer to. Raises IdentityValidationError."""
    try:
        return find(model, organization_id=organization_id, object_id=object_id)
    except NotFoundInOrganizationError as error:
        raise IdentityValidationError(field, str(error)) from None


def save_new(row: models.Model, slug: str) -> None:
    """Insert, and say in words what is wrong with the slug."""
    if not _SLUG.fullmatch(slug):
        raise IdentityValidationError(
            "slug", "1 to 63 of a-z, 0-9 and -, neither beginning nor ending with -"
        )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        if "slug" in str(error):
            raise SlugTakenError(slug) from error
        raise


def checked_name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= NAME_CHARS or not name.isprintable():
        raise IdentityValidationError("name", f"1 to {NAME_CHARS} printable characters")
    return name


def check_time_zone(name: str) -> None:
    if name not in available_timezones():
        raise IdentityValidationError("time_zone", f"no time zone is named {name!r}")


def check_known(changes: Mapping[str, object], known: set[str]) -> None:
    for name in changes:
        if name not in known:
            raise IdentityValidationError(name, "cannot be changed")


def _record(
    organization_id: UUID,
    row: Organization | Team | Project,
    action: str,
    actor: Actor,
    now: datetime,
) -> None:
    after: dict[str, Any] = {"slug": row.slug, "name": row.name}
    if isinstance(row, Project) and row.team_id is not None:
        after["team"] = str(row.team_id)
    record(
        organization_id=organization_id,
        actor=actor,
        action=action,
        object_kind=action.partition(".")[0],
        object_id=row.pk,
        after=after,
        now=now,
    )
