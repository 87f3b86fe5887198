"""Errors of the skills app. They know no HTTP; `controlplane/problems.py` maps them."""


class SkillsError(Exception):
    """Something about skills, cards or grants that cannot be done. `code` is stable."""

    code = "skills_error"


class SkillImportError(SkillsError):
    """A folder or archive that must not be imported."""

    code = "skill_import_refused"


class NotSignableError(SkillsError):
    """A card must not be signed over a skill in this state."""

    code = "skill_not_signable"


class CardRefusedError(SkillsError):
    """What the card is to say breaks the card's own rules."""

    code = "card_refused"


class CardConflictError(SkillsError):
    """Another card of this skill was signed meanwhile."""

    code = "card_conflict"


class CardNotGrantableError(SkillsError):
    """The card is revoked, superseded or expired, or the tools are not among its own."""

    code = "card_not_grantable"


class AlreadyGrantedError(SkillsError):
    """The agent has a live grant of this card."""

    code = "already_granted"


class AlreadyRevokedError(SkillsError):
    """The card or grant was revoked before; a revocation is final."""

    code = "already_revoked"


class TrustRootError(SkillsError):
    """A trust root that cannot be added or switched."""

    code = "trust_root_refused"


class SigningKeyError(SkillsError):
    """The signing key cannot be opened: the application's secret has changed."""

    code = "signing_key_unavailable"
