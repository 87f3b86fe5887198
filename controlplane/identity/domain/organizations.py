"""Organizations, teams and projects."""

from datetime import datetime
from typing import TypeVar
from uuid import UUID

from django.db import IntegrityError, models, transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain.policy import bump_policy
from controlplane.identity.errors import NotFoundInOrganizationError, SlugTakenError
from controlplane.identity.models import Organization, Project, Team

Owned = TypeVar("Owned", bound=models.Model)


@transaction.atomic
def create_organization(
    *, slug: str, name: str, actor: Actor, now: datetime, time_zone: str = "UTC"
) -> Organization:
    """Raises SlugTakenError."""
    organization = Organization(slug=slug, name=name, time_zone=time_zone, created_at=now)
    save_new(organization, slug)
    _record(organization.id, organization, "organization.create", actor, now)
    return organization


@transaction.atomic
def create_team(
    *, organization_id: UUID, slug: str, name: str, actor: Actor, now: datetime
) -> Team:
    """Raises SlugTakenError."""
    team = Team(organization_id=organization_id, slug=slug, name=name, created_at=now)
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
    """Raises SlugTakenError, NotFoundInOrganizationError."""
    if team_id is not None:
        find(Team, organization_id=organization_id, object_id=team_id)
    project = Project(
        organization_id=organization_id, team_id=team_id, slug=slug, name=name, created_at=now
    )
    save_new(project, slug)
    _record(organization_id, project, "project.create", actor, now)
    bump_policy(organization_id)
    return project


def find(model: type[Owned], *, organization_id: UUID, object_id: UUID) -> Owned:
    """An object of this organization; a foreign one is as unknown as one that never was."""
    found = model._default_manager.filter(  # noqa: SLF001 -- Django's own name for it
        pk=object_id, organization_id=organization_id
    ).first()
    if found is None:
        raise NotFoundInOrganizationError(f"no {model._meta.verbose_name} {object_id}")  # noqa: SLF001
    return found


def save_new(row: models.Model, slug: str) -> None:
    """Insert, and say in words when the slug is taken."""
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        if "slug" in str(error):
            raise SlugTakenError(f"the slug {slug!r} is taken") from error
        raise


def _record(
    organization_id: UUID,
    row: Organization | Team | Project,
    action: str,
    actor: Actor,
    now: datetime,
) -> None:
    record(
        organization_id=organization_id,
        actor=actor,
        action=action,
        object_kind=action.split(".")[0],
        object_id=str(row.pk),
        after={"slug": row.slug, "name": row.name},
        now=now,
    )
