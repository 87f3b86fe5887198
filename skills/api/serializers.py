"""What the API says of skills, cards, grants and trust roots."""

from typing import Any, cast

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.api import StrictSerializer
from skills import queries
from skills.api.fields import CapabilitiesField, CardBudgetSerializer, SourceField
from skills.enums import RevocationKind
from skills.models import Revocation, SigningKey, Skill, SkillCard, SkillGrant, TrustRoot


class GrantReasonSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500, allow_blank=True, default="")


class SkillReasonSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=500)


class ImportSerializer(StrictSerializer):
    archive = serializers.FileField(help_text="A ZIP of the skill folder, at most 50 MiB.")


class WhySerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class SkillSerializer(serializers.ModelSerializer[Skill]):
    """`state` is the verdict on the publisher's signature; `reasons` says why."""

    version = serializers.CharField(source="upstream_version")
    reasons = WhySerializer(many=True)
    findings = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        help_text="Files by finding: drifted, missing, extra, unsigned_ignored.",
    )

    class Meta:
        model = Skill
        fields = [
            "id", "name", "directory", "publisher", "version", "description",
            "root_digest", "manifest_digest", "first_seen_at",
            "state", "reasons", "findings", "kind", "root_fingerprint", "root_subject",
            "leaf_subject", "leaf_serial", "verified_at",
        ]  # fmt: skip
        read_only_fields = fields


class SkillDetailSerializer(SkillSerializer):
    files = serializers.JSONField(help_text="path → {sha256, size}")
    front_matter = serializers.JSONField()

    class Meta(SkillSerializer.Meta):
        fields = [*SkillSerializer.Meta.fields, "files", "front_matter"]
        read_only_fields = fields


class SignSerializer(StrictSerializer):
    """What the next card of a skill says."""

    capabilities = CapabilitiesField(default=dict)
    budget = CardBudgetSerializer(default=dict)
    source = SourceField(required=False)  # type: ignore[assignment]  # a field of that name
    not_before = serializers.DateTimeField(required=False)
    expires = serializers.DateTimeField()
    carry_grants = serializers.BooleanField(default=False)
    reason = serializers.CharField(max_length=500)


class CardSerializer(serializers.ModelSerializer[SkillCard]):
    """A signed card. `verdict` is what a sidecar makes of it now."""

    verdict = serializers.SerializerMethodField()
    tools = serializers.SerializerMethodField()
    agents = serializers.IntegerField(help_text="Agents that may use it now.")
    public_key = serializers.CharField(source="key.public_key")
    verify_command = serializers.SerializerMethodField()

    class Meta:
        model = SkillCard
        fields = [
            "id", "skill", "name", "card_rev", "digest", "root_digest", "state", "state_reason",
            "state_changed_at", "verdict", "tools", "agents", "not_before", "expires",
            "created_at", "created_by", "public_key", "verify_command", "envelope",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(WhySerializer)
    def get_verdict(self, card: SkillCard) -> dict[str, str]:
        return self._judge(card).verdict(card)._asdict()

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_tools(self, card: SkillCard) -> list[str]:
        opened = self._judge(card).open(card)
        return opened.tools if opened else []

    def get_verify_command(self, card: SkillCard) -> str:
        return queries.verify_command(card)

    def _judge(self, card: SkillCard) -> queries.Judge:
        """One judge for a whole page of cards."""
        context = cast("dict[str, Any]", self.context)
        if "judge" not in context:
            context["judge"] = queries.Judge(card.organization_id, now=context["now"])
        return cast("queries.Judge", context["judge"])


class GrantSerializer(serializers.ModelSerializer[SkillGrant]):
    class Meta:
        model = SkillGrant
        fields = [
            "id", "agent", "card", "tools", "reason", "granted_by", "created_at",
            "revoked_at", "revoked_by", "revoke_reason",
        ]  # fmt: skip
        read_only_fields = fields


class GrantRequestSerializer(StrictSerializer):
    agent = serializers.UUIDField()
    card = serializers.UUIDField()
    tools = serializers.ListField(
        child=serializers.CharField(max_length=200),
        max_length=1000,
        required=False,
        allow_null=True,
        default=None,
        help_text="Some of the card's tools; null or left out: all of them.",
    )
    reason = serializers.CharField(max_length=500)


class TrustRootSerializer(serializers.ModelSerializer[TrustRoot]):
    shipped = serializers.SerializerMethodField(help_text="Comes with the program, switched off.")

    class Meta:
        model = TrustRoot
        fields = [
            "id", "name", "fingerprint", "subject", "required_subject", "source", "not_after",
            "enabled", "changed_at", "shipped", "pem",
        ]  # fmt: skip
        read_only_fields = fields

    def get_shipped(self, root: TrustRoot) -> bool:
        return root.organization_id is None


class TrustRootRequestSerializer(StrictSerializer):
    name = serializers.CharField(max_length=200)
    pem = serializers.CharField(max_length=20_000)
    required_subject = serializers.CharField(
        max_length=500, help_text="`CN=…,O=…`: each part must stand in the leaf; `*` at the end."
    )
    reason = serializers.CharField(max_length=500)


class RevocationSerializer(serializers.ModelSerializer[Revocation]):
    class Meta:
        model = Revocation
        fields = ["id", "kind", "value", "reason", "revoked_by", "created_at"]
        read_only_fields = fields


class RevocationRequestSerializer(StrictSerializer):
    kind = serializers.ChoiceField(choices=RevocationKind.choices)
    value = serializers.RegexField(r"^[0-9a-fA-F]{1,64}\Z")
    reason = serializers.CharField(max_length=500)


class SigningKeySerializer(serializers.ModelSerializer[SigningKey]):
    class Meta:
        model = SigningKey
        fields = ["key_id", "public_key", "created_at", "retired_at", "distrusted_at"]
        read_only_fields = fields


class RequirementSerializer(StrictSerializer):
    required = serializers.BooleanField()  # type: ignore[assignment]  # a field of that name
    reason = serializers.CharField(max_length=500, write_only=True)
