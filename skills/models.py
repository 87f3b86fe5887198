"""Skills, the cards signed over them, and who may use which.

Invariants, all held by the database (`0002_guards.sql`):

1. A skill's identity and content never change; only the verdict on its signature does.
2. Of one skill name, card revisions rise by one; a card's signed text never changes, and its
   state only moves active → superseded → revoked.
3. An agent has at most one live grant of a card; a grant is revoked once and never edited.
4. Shipped trust roots (without organization) stay switched off: to trust one, an organization
   switches on its own copy.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from controlplane.identity.ids import new_id
from skills.enums import CardState, RevocationKind, SkillState

_HEX64 = r"^[0-9a-f]{64}$"


class TrustRoot(models.Model):
    """A publisher's root certificate, and the leaf subject that may sign skills under it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", on_delete=models.PROTECT, null=True, related_name="+"
    )  # null: shipped with the program, as data
    name = models.CharField(max_length=200)
    pem = models.TextField()
    fingerprint = models.CharField(max_length=64)
    subject = models.CharField(max_length=500)
    required_subject = models.CharField(max_length=500)
    source = models.CharField(max_length=500, blank=True)
    not_after = models.DateTimeField(null=True)  # null: the certificate has no end
    enabled = models.BooleanField(default=False)
    changed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("name", "id")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "fingerprint"],
                name="trust_root_once",
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                condition=Q(fingerprint__regex=_HEX64), name="trust_root_fingerprint"
            ),
            models.CheckConstraint(
                condition=~Q(required_subject=""), name="trust_root_subject_pinned"
            ),
            models.CheckConstraint(
                condition=Q(organization__isnull=False) | Q(enabled=False),
                name="trust_root_shipped_is_off",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class SigningKey(models.Model):
    """An organization's Ed25519 key for cards. The private half is sealed under the app secret."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", on_delete=models.PROTECT, related_name="+"
    )
    key_id = models.CharField(max_length=64, unique=True)
    public_key = models.CharField(max_length=64)
    sealed_private_key = models.BinaryField()
    created_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True)  # signs no more; what it signed still counts
    distrusted_at = models.DateTimeField(null=True)  # nothing it signed counts

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(retired_at__isnull=True),
                name="signing_key_one_in_use",
            ),
            models.CheckConstraint(
                condition=Q(distrusted_at__isnull=True) | Q(retired_at__isnull=False),
                name="signing_key_distrusted_is_retired",
            ),
        ]

    def __str__(self) -> str:
        return self.key_id[:16]


class Skill(models.Model):
    """One content of one skill: the digests of its files and what its publisher signed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", on_delete=models.PROTECT, related_name="+"
    )
    name = models.CharField(max_length=200)
    directory = models.CharField(max_length=200, blank=True)
    publisher = models.CharField(max_length=200, blank=True)
    upstream_version = models.CharField(max_length=200, blank=True)
    description = models.TextField(blank=True)
    root_digest = models.CharField(max_length=64)
    manifest_digest = models.CharField(max_length=64)
    files = models.JSONField()  # path → {"sha256", "size"}; git's own paths included, never used
    front_matter = models.JSONField(default=dict)
    bundle = models.BinaryField(null=True)
    bundle_digest = models.CharField(max_length=64, blank=True)
    first_seen_at = models.DateTimeField()

    state = models.CharField(max_length=20, choices=SkillState.choices)
    reasons = models.JSONField(default=list)  # [{"code", "message"}]
    findings = models.JSONField(default=dict)  # drifted, missing, extra, unsigned_ignored
    kind = models.CharField(max_length=20, default="none")
    root_fingerprint = models.CharField(max_length=64, blank=True)
    root_subject = models.CharField(max_length=500, blank=True)
    leaf_subject = models.CharField(max_length=500, blank=True)
    leaf_serial = models.CharField(max_length=64, blank=True)
    verified_at = models.DateTimeField()

    class Meta:
        ordering = ("name", "-first_seen_at", "id")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name", "directory", "manifest_digest", "bundle_digest"],
                name="skill_content_once",
            ),
            models.CheckConstraint(
                condition=Q(root_digest__regex=_HEX64), name="skill_root_digest"
            ),
            models.CheckConstraint(
                condition=Q(state__in=SkillState.values), name="skill_state_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.root_digest[:12]}"


class SkillCard(models.Model):
    """A signed statement about one skill. Append-only but for its state."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", on_delete=models.PROTECT, related_name="+"
    )
    skill = models.ForeignKey(Skill, on_delete=models.PROTECT, related_name="cards")
    key = models.ForeignKey(SigningKey, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    card_rev = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    root_digest = models.CharField(max_length=64)
    envelope = models.TextField()
    not_before = models.DateTimeField()
    expires = models.DateTimeField()
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)

    state = models.CharField(max_length=12, choices=CardState.choices, default=CardState.ACTIVE)
    state_changed_at = models.DateTimeField()
    state_reason = models.TextField(blank=True)

    class Meta:
        ordering = ("name", "-card_rev")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name", "card_rev"], name="skill_card_revision_once"
            ),
            models.UniqueConstraint(fields=["organization", "digest"], name="skill_card_once"),
            models.UniqueConstraint(
                fields=["organization", "name"],
                condition=Q(state=CardState.ACTIVE),
                name="skill_card_one_active",
            ),
            models.CheckConstraint(condition=Q(card_rev__gte=1), name="skill_card_revision"),
            models.CheckConstraint(condition=Q(digest__regex=_HEX64), name="skill_card_digest"),
            models.CheckConstraint(
                condition=Q(not_before__lt=models.F("expires")), name="skill_card_lifetime"
            ),
            models.CheckConstraint(
                condition=Q(state__in=CardState.values), name="skill_card_state_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} r{self.card_rev}"


class SkillGrant(models.Model):
    """An agent may use a card, or some of its tools."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", on_delete=models.PROTECT, related_name="+"
    )
    agent = models.ForeignKey("identity.Agent", on_delete=models.PROTECT, related_name="+")
    card = models.ForeignKey(SkillCard, on_delete=models.PROTECT, related_name="grants")
    tools = ArrayField(models.CharField(max_length=200), null=True)  # null: all of the card's
    reason = models.TextField(blank=True)
    granted_by = models.CharField(max_length=200)
    created_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=200, blank=True)
    revoke_reason = models.TextField(blank=True)

    class Meta:
        ordering = ("-created_at", "id")
        constraints = [
            models.UniqueConstraint(
                fields=["agent", "card"],
                condition=Q(revoked_at__isnull=True),
                name="skill_grant_one_live",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.agent_id} → {self.card_id}"


class Revocation(models.Model):
    """A content or a publisher's certificate that an organization no longer accepts."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", on_delete=models.PROTECT, related_name="+"
    )
    kind = models.CharField(max_length=10, choices=RevocationKind.choices)
    value = models.CharField(max_length=64)
    reason = models.TextField()
    revoked_by = models.CharField(max_length=200)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ("-created_at", "id")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "kind", "value"], name="revocation_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.value[:16]}"
