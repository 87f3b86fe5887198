from django.db import models
from django.db.models import Q

from controlplane.identity.ids import new_id

SLUG_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class Organization(models.Model):
    """The top of ownership. Nothing of one organization is ever visible to another."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.CharField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    time_zone = models.CharField(max_length=64, default="UTC")
    policy_revision = models.BigIntegerField(default=1)
    requires_skill_cards = models.BooleanField(default=False)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(slug__regex=SLUG_PATTERN), name="organization_slug_form"
            ),
            models.CheckConstraint(condition=~Q(name=""), name="organization_named"),
            models.CheckConstraint(
                condition=Q(policy_revision__gt=0), name="organization_policy_revision_positive"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Team(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="teams")
    slug = models.CharField(max_length=63)
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "slug"], name="team_slug_unique"),
            models.UniqueConstraint(fields=["id", "organization"], name="team_with_organization"),
            models.CheckConstraint(condition=Q(slug__regex=SLUG_PATTERN), name="team_slug_form"),
            models.CheckConstraint(condition=~Q(name=""), name="team_named"),
        ]

    def __str__(self) -> str:
        return self.name


class Project(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="projects")
    team = models.ForeignKey(Team, models.PROTECT, null=True, blank=True, related_name="projects")
    slug = models.CharField(max_length=63)
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "slug"], name="project_slug_unique"),
            models.UniqueConstraint(
                fields=["id", "organization"], name="project_with_organization"
            ),
            models.CheckConstraint(condition=Q(slug__regex=SLUG_PATTERN), name="project_slug_form"),
            models.CheckConstraint(condition=~Q(name=""), name="project_named"),
        ]

    def __str__(self) -> str:
        return self.name
