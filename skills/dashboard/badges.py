"""Words, tone and icon of every state of skills and cards. Never a colour alone."""

from typing import NamedTuple


class Badge(NamedTuple):
    label: str
    tone: str
    icon: str


_SKILL = {
    "verified": Badge("Verified", "ok", "badge-check"),
    "unsigned": Badge("Unsigned", "warn", "shield-alert"),
    "wrong_root": Badge("Untrusted root", "warn", "shield-alert"),
    "expired": Badge("Certificate expired", "warn", "calendar-clock"),
    "drifted": Badge("Drifted", "bad", "shield-x"),
    "extra_files": Badge("Extra files", "bad", "shield-x"),
    "name_mismatch": Badge("Name mismatch", "bad", "shield-x"),
    "rolled_back": Badge("Rolled back", "bad", "shield-x"),
    "revoked": Badge("Revoked", "bad", "shield-x"),
    "unsupported": Badge("Unsupported", "idle", "circle-question-mark"),
    "malformed": Badge("Malformed", "bad", "shield-x"),
}
_CARD = {
    "valid": Badge("Valid", "ok", "badge-check"),
    "not_yet_valid": Badge("Not yet valid", "warn", "calendar-clock"),
    "expired": Badge("Expired", "warn", "calendar-clock"),
    "rolled_back": Badge("Superseded", "idle", "archive"),
    "revoked": Badge("Revoked", "bad", "shield-x"),
    "unknown_key": Badge("Unknown key", "bad", "shield-alert"),
    "signature_invalid": Badge("Signature broken", "bad", "shield-x"),
}


def skill_badge(state: str) -> Badge:
    return _SKILL[state]


def card_badge(code: str) -> Badge:
    """The badge of a verdict; whatever else can be wrong with a card breaks it."""
    return _CARD.get(code, Badge("Broken", "bad", "shield-x"))
