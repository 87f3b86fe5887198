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
from enforcement.rules.money import usd_text
from enforcement.rules.reconcile import CauseKind, Threshold, Verdict

OF_MONEY = (CauseKind.PRICE_MISSING, CauseKind.PRICE_DIFFERS, CauseKind.OTHER_CHARGES)
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
    Reconciliation.objects.filter(ends_at__lt=now - KEPT).delete()
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
    """Tell each organization of its nodes and providers that drift. Returns how many were told."""
    rows = Reconciliation.objects.select_for_update().filter(
        verdict=Verdict.DRIFTS,
        alerted_at__isnull=True,
        ends_at__gte=now - ALWAYS,
        ends_at__lte=now - SETTLED,
    )
    drifting: dict[tuple[UUID, str], list[Reconciliation]] = defaultdict(list)
    for row in rows.order_by("organization_id", "starts_at", "id"):
        drifting[row.organization_id, _who(row)].append(row)
    told = _told_lately(drifting, now)
    for key, of_one in drifting.items():
        if key not in told:
            _tell(*key, of_one, now)
    return len(drifting.keys() - told)


def _who(row: Reconciliation) -> str:
    return row.node or row.provider


def _told_lately(keys: Iterable[tuple[UUID, str]], now: datetime) -> set[tuple[UUID, str]]:
    organizations = {organization_id for organization_id, _ in keys}
    rows = Reconciliation.objects.filter(
        organization_id__in=organizations, verdict=Verdict.DRIFTS, alerted_at__gt=now - QUIET
    )
    return {(row.organization_id, _who(row)) for row in rows.only("organization_id", "node")}


def _tell(organization_id: UUID, who: str, rows: Sequence[Reconciliation], now: datetime) -> None:
    last = rows[-1]
    times = f"{len(rows)} times, lastly from" if len(rows) > 1 else "From"
    notify(
        organization_id=organization_id,
        title=f"{who}: {_amount(rows)}",
        body=f"{times} {_clock(last.starts_at)} to {_clock(last.ends_at)} UTC. {last.cause}",
        now=now,
    )
    Reconciliation.objects.filter(pk__in=[row.pk for row in rows]).update(alerted_at=now)


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _amount(rows: Sequence[Reconciliation]) -> str:
    """The larger of both differences, in words."""
    if rows[-1].produced_generation_tokens is not None:
        return _tokens_apart(rows, "produced", "engine", "count")
    if rows[-1].billed_generation_tokens is not None and rows[-1].cause_kind not in OF_MONEY:
        return _tokens_apart(rows, "billed", "provider", "bill")
    nanos = sum((row.billed_nanos or 0) - row.charge_nanos for row in rows)
    way = "more" if nanos > 0 else "less"
    return f"the provider billed ${usd_text(abs(nanos))} {way} than was charged"


def _tokens_apart(rows: Iterable[Reconciliation], side: str, who: str, verb: str) -> str:
    drift = {"prompt": 0, "generation": 0}
    for row in rows:
        for kind in drift:
            told = getattr(row, f"{side}_{kind}_tokens") or 0
            drift[kind] += told - getattr(row, f"metered_{kind}_tokens")
    most = max(drift.values(), key=abs)
    if most > 0:
        return f"the {who} {verb}ed {most:,} tokens more than were metered"
    return f"{-most:,} tokens were metered that the {who} did not {verb}"
