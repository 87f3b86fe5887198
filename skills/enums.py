"""States of the skills app. What may follow what stands beside each."""

from django.db.models import TextChoices


class SkillState(TextChoices):
    """What the publisher's signature was worth at the last verification."""

    VERIFIED = "verified", "Verified"
    WRONG_ROOT = "wrong_root", "Wrong root"
    EXPIRED = "expired", "Expired"
    DRIFTED = "drifted", "Drifted"
    EXTRA_FILES = "extra_files", "Extra files"
    NAME_MISMATCH = "name_mismatch", "Name mismatch"
    ROLLED_BACK = "rolled_back", "Rolled back"
    REVOKED = "revoked", "Revoked"
    UNSIGNED = "unsigned", "Unsigned"
    UNSUPPORTED = "unsupported", "Unsupported"
    MALFORMED = "malformed", "Malformed"


class CardState(TextChoices):
    """active → superseded → revoked, active → revoked. A trigger refuses every other way."""

    ACTIVE = "active", "Active"
    SUPERSEDED = "superseded", "Superseded"
    REVOKED = "revoked", "Revoked"


class RevocationKind(TextChoices):
    """What is no longer good: a content (root digest), or a publisher's certificate (serial)."""

    DIGEST = "digest", "Content"
    SERIAL = "serial", "Certificate"


#: A card may be signed over a skill in these states only.
SIGNABLE = frozenset({SkillState.VERIFIED, SkillState.UNSIGNED})

#: A card that was signed over a verified skill outlives these states of it: the certificate
#: was good when we signed, and our own card has its own expiry.
STILL_TRUSTED = frozenset({SkillState.VERIFIED, SkillState.UNSIGNED, SkillState.EXPIRED})
