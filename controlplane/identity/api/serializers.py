"""What the API says of organizations, teams, projects, agents, people and their credentials."""

from typing import Any

from rest_framework import serializers

from controlplane.api import StrictSerializer
from controlplane.audit.models import AuditEntry
from controlplane.identity.domain.agents import MAX_RATE
from controlplane.identity.enums import Role, Scope, TokenKind
from controlplane.identity.models import (
    Agent,
    AgentKey,
    ApiToken,
    Membership,
    Organization,
    Project,
    Team,
)

SLUG = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
MAX_OVERLAP_S = 30 * 24 * 3600
SHOWN_ONCE = "Shown once and stored nowhere; null in a repeated answer."


class SlugField(serializers.RegexField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(SLUG, max_length=63, trim_whitespace=False, **kwargs)


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500, allow_blank=True, default="")


# ------------------------------------------------------------------------------- organization


class OrganizationSerializer(serializers.ModelSerializer[Organization]):
    class Meta:
        model = Organization
        fields = [
            "id", "slug", "name", "time_zone", "policy_revision", "requires_skill_cards",
            "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class OrganizationChangeSerializer(StrictSerializer):
    name = serializers.CharField(max_length=200, required=False)
    time_zone = serializers.CharField(max_length=64, required=False)


class TeamSerializer(serializers.ModelSerializer[Team]):
    class Meta:
        model = Team
        fields = ["id", "slug", "name", "created_at"]
        read_only_fields = fields


class TeamCreateSerializer(StrictSerializer):
    slug = SlugField()
    name = serializers.CharField(max_length=200)


class RenameSerializer(StrictSerializer):
    name = serializers.CharField(max_length=200)


class ProjectSerializer(serializers.ModelSerializer[Project]):
    class Meta:
        model = Project
        fields = ["id", "slug", "name", "team", "created_at"]
        read_only_fields = fields


class ProjectCreateSerializer(TeamCreateSerializer):
    team = serializers.UUIDField(required=False, allow_null=True, source="team_id")


# ------------------------------------------------------------------------------- agents


class AgentSerializer(serializers.ModelSerializer[Agent]):
    class Meta:
        model = Agent
        fields = [
            "id", "slug", "name", "team", "project", "owner", "state", "state_reason",
            "state_changed_at", "state_drains", "requests_per_minute", "tokens_per_minute",
            "priority", "hand_back_tokens", "created_at", "retired_at",
        ]  # fmt: skip
        read_only_fields = fields


class AgentChangeSerializer(StrictSerializer):
    name = serializers.CharField(max_length=200, required=False)
    team = serializers.UUIDField(required=False, allow_null=True, source="team_id")
    project = serializers.UUIDField(required=False, allow_null=True, source="project_id")
    owner = serializers.UUIDField(required=False, allow_null=True, source="owner_id")
    requests_per_minute = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MAX_RATE
    )
    tokens_per_minute = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MAX_RATE
    )
    priority = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=9,
        help_text="Higher ones get more of a busy node, and engines are told.",
    )
    hand_back_tokens = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=1_000_000,
        help_text="Output of the one call that each paused session may still make.",
    )


class AgentCreateSerializer(AgentChangeSerializer):
    slug = SlugField()
    name = serializers.CharField(max_length=200)


class AgentKeySerializer(serializers.ModelSerializer[AgentKey]):
    class Meta:
        model = AgentKey
        fields = [
            "id", "agent", "name", "prefix", "created_at", "expires_at", "revoked_at",
            "last_used_at",
        ]  # fmt: skip
        read_only_fields = fields


class AgentKeyIssueSerializer(StrictSerializer):
    name = serializers.CharField(max_length=100, allow_blank=True, default="")
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class IssuedAgentKeySerializer(AgentKeySerializer):
    secret = serializers.CharField(read_only=True, allow_null=True, help_text=SHOWN_ONCE)

    class Meta(AgentKeySerializer.Meta):
        fields = [*AgentKeySerializer.Meta.fields, "secret"]
        read_only_fields = fields


class RotateSerializer(StrictSerializer):
    overlap_seconds = serializers.IntegerField(
        min_value=0,
        max_value=MAX_OVERLAP_S,
        default=0,
        help_text="How much longer the old secret works.",
    )


# ------------------------------------------------------------------------------- people, tokens


class PersonSerializer(serializers.ModelSerializer[Membership]):
    """A person as a member of the organization."""

    id = serializers.UUIDField(source="person_id", read_only=True)
    email = serializers.EmailField(source="person.email", read_only=True)
    name = serializers.CharField(source="person.name", read_only=True)
    is_active = serializers.BooleanField(source="person.is_active", read_only=True)
    last_login = serializers.DateTimeField(source="person.last_login", read_only=True)

    class Meta:
        model = Membership
        fields = ["id", "email", "name", "role", "is_active", "last_login", "created_at"]
        read_only_fields = fields


class PersonAddSerializer(StrictSerializer):
    email = serializers.EmailField(max_length=254)
    name = serializers.CharField(max_length=200, allow_blank=True, default="")
    role = serializers.ChoiceField(choices=Role.choices)


class RoleSerializer(StrictSerializer):
    role = serializers.ChoiceField(choices=Role.choices)


class SignInLinkSerializer(serializers.Serializer[Any]):
    sign_in_url = serializers.URLField(
        allow_null=True, help_text="Works once, within half an hour."
    )


class PasswordSerializer(StrictSerializer):
    current_password = serializers.CharField(max_length=200, allow_blank=True, default="")
    password = serializers.CharField(max_length=200)


class MeSerializer(serializers.Serializer[Any]):
    """Who the caller is and what it may do."""

    organization = OrganizationSerializer()
    actor_kind = serializers.CharField()
    actor_id = serializers.CharField()
    actor_label = serializers.CharField()
    person = serializers.UUIDField(allow_null=True)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.choices))


class ApiTokenSerializer(serializers.ModelSerializer[ApiToken]):
    class Meta:
        model = ApiToken
        fields = [
            "id", "name", "kind", "person", "prefix", "scopes", "created_at", "expires_at",
            "revoked_at", "last_used_at",
        ]  # fmt: skip
        read_only_fields = fields


class ApiTokenIssueSerializer(StrictSerializer):
    name = serializers.CharField(max_length=100)
    kind = serializers.ChoiceField(choices=TokenKind.choices, default=TokenKind.API.value)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=Scope.choices),
        default=list,
        max_length=len(Scope.values),
        help_text="At least one for an API token, none for a sidecar's.",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class IssuedApiTokenSerializer(ApiTokenSerializer):
    secret = serializers.CharField(read_only=True, allow_null=True, help_text=SHOWN_ONCE)

    class Meta(ApiTokenSerializer.Meta):
        fields = [*ApiTokenSerializer.Meta.fields, "secret"]
        read_only_fields = fields


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    class Meta:
        model = AuditEntry
        fields = [
            "id", "at", "actor_kind", "actor_id", "actor_label", "action", "object_kind",
            "object_id", "reason", "before", "after",
        ]  # fmt: skip
        read_only_fields = fields
