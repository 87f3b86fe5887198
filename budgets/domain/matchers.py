"""The matching of an organization's budgets, compiled once for each revision of its policy."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

from django.db import transaction

from budgets.models import Budget
from controlplane.identity.models import Organization
from enforcement.rules.matching import Matcher

MAX_KEPT = 64  # organizations, in this process


@dataclass(frozen=True)
class Compiled:
    """All live budgets at one revision. Rows are shared between threads: read only."""

    revision: int
    matcher: Matcher
    budgets: dict[str, Budget]


_kept: OrderedDict[UUID, Compiled] = OrderedDict()
_lock = Lock()


def compiled_budgets(organization_id: UUID) -> Compiled:
    """The live budgets of now: one query when nothing changed since the last time.

    Kept at the commit of a running transaction: a revision that is rolled back is given again.
    """
    rows = Organization.objects.filter(pk=organization_id)
    revision = rows.values_list("policy_revision", flat=True).get()
    with _lock:
        known = _kept.get(organization_id)
        if known is not None and known.revision == revision:
            _kept.move_to_end(organization_id)
            return known
    live = Budget.objects.filter(organization_id=organization_id, archived_at__isnull=True)
    budgets = {str(budget.id): budget for budget in live}
    matcher = Matcher([budget.to_policy() for budget in budgets.values()])
    fresh = Compiled(revision, matcher, budgets)
    transaction.on_commit(lambda: _keep(organization_id, fresh))
    return fresh


def _keep(organization_id: UUID, compiled: Compiled) -> None:
    with _lock:
        _kept[organization_id] = compiled
        while len(_kept) > MAX_KEPT:
            _kept.popitem(last=False)
