"""The rows of the simulated control plane, as a replica would have them."""

import pickle
from dataclasses import dataclass

from enforcement.rules.ledger import Balance, Lease, Transfer
from enforcement.rules.policy import PolicySnapshot
from enforcement.rules.spools import Spool
from enforcement.simulation.trees import Row


@dataclass(frozen=True)
class Rows:
    """All that a database keeps."""

    balances: dict[str, Balance]
    leases: dict[str, Lease]
    transfers: list[Transfer]
    spools: dict[str, Spool]
    groups: dict[str, list[str]]
    contents: dict[str, str]
    live: dict[str, list[str]]
    parts: list[Row]
    policy: PolicySnapshot
    acknowledged: dict[str, int]
    armed_revision: int


def rows_of(remembered: bytes) -> Rows:
    """What a replica has."""
    rows: Rows = pickle.loads(remembered)  # noqa: S301 -- ours
    return rows
