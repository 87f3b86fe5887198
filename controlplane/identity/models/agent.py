from django.db import models
from django.db.models import Q

from controlplane.identity.enums import State
from controlplane.identity.ids import new_id
from controlplane.identity.models.organization import (
    SLUG_PATTERN,
    Organization,
    Project,
    Team,
)
from controlplane.identity.models.person import Person


class Agent(models.Model):
    """The first-class subject: it has an owner, keys, skill cards, budgets and a state.

    A retired agent keeps its slug, so that nobody can take over its balances (L15).
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="agents")
    team = models.ForeignKey(Team, models.PROTECT, null=True, blank=True, related_name="agents")
    project = models.ForeignKey(
        Project, models.PROTECT, null=True, blank=True, related_name="agents"
    )
    owner = models.ForeignKey(Person, models.PROTECT, null=True, blank=True, related_name="agents")
    slug = models.CharField(max_length=63)
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=9, choices=State.choices, default=State.ACTIVE)
    state_reason = models.CharField(max_length=500, blank=True, default="")
    state_changed_at = models.DateTimeField()
    requests_per_minute = models.IntegerField(null=True, blank=True)
    tokens_per_minute = models.IntegerField(null=True, blank=True)
    priority = models.SmallIntegerField(default=0, db_default=0)  # 0 to 9, higher ones first
    hand_back_tokens = models.IntegerField(null=True, blank=True)  # of one last call when paused
    state_drains = models.BooleanField(
        default=False, db_default=False
    )  # what ran when it was stopped may end
    created_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "slug"], name="agent_slug_unique"),
            models.UniqueConstraint(fields=["id", "organization"], name="agent_with_organization"),
            models.CheckConstraint(condition=Q(slug__regex=SLUG_PATTERN), name="agent_slug_form"),
            models.CheckConstraint(condition=~Q(name=""), name="agent_named"),
            models.CheckConstraint(
                condition=Q(state__in=State.values),
                name="agent_state_known",
            ),
            models.CheckConstraint(
                condition=Q(requests_per_minute__isnull=True) | Q(requests_per_minute__gt=0),
                name="agent_requests_per_minute_positive",
            ),
            models.CheckConstraint(
                condition=Q(tokens_per_minute__isnull=True) | Q(tokens_per_minute__gt=0),
                name="agent_tokens_per_minute_positive",
            ),
            models.CheckConstraint(
                condition=Q(priority__gte=0, priority__lte=9), name="agent_priority_in_range"
            ),
            models.CheckConstraint(
                condition=Q(hand_back_tokens__isnull=True) | Q(hand_back_tokens__gt=0),
                name="agent_hand_back_tokens_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AgentKey(models.Model):
    """A bearer secret of an agent: its public prefix and its hash under the pepper."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="agent_keys")
    agent = models.ForeignKey(Agent, models.PROTECT, related_name="keys")
    name = models.CharField(max_length=100, blank=True, default="")
    prefix = models.CharField(max_length=32, unique=True)
    key_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(key_hash__regex=r"^[0-9a-f]{64}$"), name="agent_key_hash_form"
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=models.F("created_at")),
                name="agent_key_expires_after_creation",
            ),
        ]

    def __str__(self) -> str:
        return self.prefix
