"""Advisory locks of an organization, for one transaction. Row locks come after them, by id.

Bookings of usage share an organization's lock; making or changing a budget takes it alone. So a
new budget sees every event that was booked without it, and every later booking sees the budget.
"""

from uuid import UUID

from django.db import connection

_BUDGETS = 0x6275  # the first key of the pair: which lock
_RATINGS = 0x7261
_REPORTS = 0x7270
_NODES = 0x6E6F


def share_budgets(organization_id: UUID) -> None:
    """Keep the organization's budgets as they are until the transaction ends."""
    _take("pg_advisory_xact_lock_shared", organization_id)


def lock_budgets(organization_id: UUID) -> None:
    """Wait for running bookings of usage, then keep others out until the transaction ends."""
    _take("pg_advisory_xact_lock", organization_id)


def rate_alone(organization_id: UUID) -> None:
    """Let one run at a time charge recorded calls again. Taken before `share_budgets`."""
    _take("pg_advisory_xact_lock", organization_id, kind=_RATINGS)


def report_alone(organization_id: UUID) -> None:
    """Let one batch of reported calls at a time in: two may tell of one call. Taken first."""
    _take("pg_advisory_xact_lock", organization_id, kind=_REPORTS)


def name_nodes_alone(organization_id: UUID) -> None:
    """Let one at a time enter nodes: hellos, discovery and people. Taken first."""
    _take("pg_advisory_xact_lock", organization_id, kind=_NODES)


def key_pair(organization_id: UUID) -> tuple[int, int]:
    """The two keys of the lock, for callers with a connection of their own."""
    folded = organization_id.int >> 96 ^ organization_id.int & 0xFFFFFFFF
    key = int.from_bytes((folded & 0xFFFFFFFF).to_bytes(4, "big"), "big", signed=True)
    return _BUDGETS, key


def _take(function: str, organization_id: UUID, *, kind: int = _BUDGETS) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s, %s)", [kind, key_pair(organization_id)[1]])
