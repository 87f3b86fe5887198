"""Keeping reconciliation current, and telling people of drift: at most once a day for each node."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from budgets.domain.notifications import notify
from budgets.domain.rollups import OVERLAP
from budgets.models import RollupWatermark
from controlplane.identity.models import Organization
from enforcement.domain.gather import HOUR, hour_of
from enforcement.domain.reconciliation import reconcile
from enforcement.models import Reconciliation
from enforcement.rules.reconcile import Threshold, Verdict

NAME = "reconciliation"  # of its watermark
ALWAYS = timedelta(hours=48)  # computed anew at each turn; older hours when an event comes late
OLDEST = timedelta(days=31)
KEPT = timedelta(days=400)
SETTLED = timedelta(minutes=15)  # after an hour: its calls have ended, and were reported
QUIET = timedelta(days=1)

_LATE = """
SELECT DISTINCT organization_id, date_trunc('hour', started_at, 'UTC')
FROM budgets_usageevent
WHERE received_at >= %s AND received_at <= %s AND started_at >= %s AND started_at < %s
"""


def configured_threshold() -> Threshold:
    return Threshold(settings.DRIFT_PER_MILLE, settings.DRIFT_FLOOR_TOKENS)


def keep_reconciled(*, now: datetime) -> None:
    """The last two days of every organization, and older hours of which events came late."""
    by = configured_threshold()
    for organization_id in Organization.objects.values_list("id", flat=True):
        reconcile(organization_id=organization_id, since=now - ALWAYS, until=now, now=now, by=by)
    for organization_id, hour in _late_hours(now):
        reconcile(organization_id=organization_id, since=hour, until=hour + HOUR, now=now, by=by)
    RollupWatermark.objects.update_or_create(
        name=NAME, defaults={"received_at": now, "folded_at": now}
    )
    Reconciliation.objects.filter(hour__lt=now - KEPT).delete()
    alert(now=now)


def _late_hours(now: datetime) -> list[tuple[UUID, datetime]]:
    """Hours before the last two days, of events that came since the last turn."""
    watermark = RollupWatermark.objects.filter(name=NAME).first()
    since = watermark.received_at - OVERLAP if watermark else now - QUIET
    with connection.cursor() as cursor:
        cursor.execute(_LATE, [since, now, now - OLDEST, hour_of(now - ALWAYS)])
        return list(cursor.fetchall())


# ------------------------------------------------------------------------------- telling


@transaction.atomic
def alert(*, now: datetime) -> int:
    """Tell each organization of its nodes that drift. Returns how many were told of."""
    rows = Reconciliation.objects.select_for_update().filter(
        verdict=Verdict.DRIFTS,
        alerted_at__isnull=True,
        hour__gte=now - ALWAYS,
        hour__lte=now - HOUR - SETTLED,
    )
    drifting: dict[tuple[UUID, str], list[Reconciliation]] = defaultdict(list)
    for row in rows.order_by("organization_id", "node", "hour"):
        drifting[row.organization_id, row.node].append(row)
    told = _told_lately(drifting, now)
    for key, of_node in drifting.items():
        if key not in told:
            _tell(*key, of_node, now)
    return len(drifting.keys() - told)


def _told_lately(keys: Iterable[tuple[UUID, str]], now: datetime) -> set[tuple[UUID, str]]:
    organizations = {organization_id for organization_id, _ in keys}
    rows = Reconciliation.objects.filter(
        organization_id__in=organizations, verdict=Verdict.DRIFTS, alerted_at__gt=now - QUIET
    )
    return set(rows.values_list("organization_id", "node").distinct())


def _tell(organization_id: UUID, node: str, rows: Sequence[Reconciliation], now: datetime) -> None:
    last = rows[-1]
    hours = f"{len(rows)} hours up to" if len(rows) > 1 else "the hour from"
    notify(
        organization_id=organization_id,
        title=f"{node}: {_amount(rows)}",
        body=f"In {hours} {last.hour:%Y-%m-%d %H:%M} UTC. {last.cause}".strip(),
        now=now,
    )
    Reconciliation.objects.filter(pk__in=[row.pk for row in rows]).update(alerted_at=now)


def _amount(rows: Iterable[Reconciliation]) -> str:
    """The larger of both differences, in words."""
    drift = [0, 0]
    for row in rows:
        drift[0] += (row.produced_prompt_tokens or 0) - row.metered_prompt_tokens
        drift[1] += (row.produced_generation_tokens or 0) - row.metered_generation_tokens
    most = max(drift, key=abs)
    if most > 0:
        return f"the engine counted {most:,} tokens more than were metered"
    return f"{-most:,} tokens were metered that the engine did not count"
