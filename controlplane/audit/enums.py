from enum import StrEnum


class ActorKind(StrEnum):
    """Who can have done something."""

    PERSON = "person"
    TOKEN = "token"  # noqa: S105 -- a word, not a secret
    SIDECAR = "sidecar"
    SYSTEM = "system"
