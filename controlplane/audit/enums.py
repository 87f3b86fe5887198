from enum import StrEnum


class ActorKind(StrEnum):
    """Who can have done something."""

    PERSON = "person"
    TOKEN = "token"
    SIDECAR = "sidecar"
    SYSTEM = "system"
