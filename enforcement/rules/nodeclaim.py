"""Whether a sidecar that names a serving node speaks for it. Pure.

Whoever has a sidecar's token can name any node. So a node is not taken from a sidecar that may
still speak for it, and one that people removed does not come back by itself.
"""

from dataclasses import dataclass
from enum import StrEnum


class Claim(StrEnum):
    """What becomes of the name."""

    OWN = "own"
    ADOPTED = "adopted"  # nobody speaks for it, or nobody any more
    SHARED = "shared"  # two sidecars before one node: the first speaks for it
    OF_ANOTHER = "of_another"
    REMOVED = "removed"


REFUSED = {
    Claim.OF_ANOTHER: "another sidecar speaks for the node of this name, at another address",
    Claim.REMOVED: "people removed the node of this name; they can activate it",
}


@dataclass(frozen=True, slots=True)
class Known:
    """A node that stands in the registry. `owner` is empty where no sidecar speaks for it."""

    owner: str
    owner_is_revoked: bool
    address: str
    is_gone: bool
    is_removed: bool


def judge(known: Known, *, sidecar: str, address: str) -> Claim:
    """What becomes of a name that `sidecar` gives to the node at `address`.

    A node that its sidecar names no more is gone, and free for others.
    """
    if known.is_removed:
        return Claim.REMOVED
    if known.owner == sidecar:
        return Claim.OWN
    if not known.owner or known.owner_is_revoked or known.is_gone:
        return Claim.ADOPTED
    return Claim.SHARED if known.address == address else Claim.OF_ANOTHER
