"""What `/metrics` tells of gathering: how nodes are read, where counts drift apart.

Totals of the installation. Which node fails or drifts is told by its page and by notifications: as
a label, each pod that ever lived would stay a series.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import connection
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from budgets.models import RollupWatermark
from enforcement.domain.drift import NAME, SETTLED
from enforcement.domain.nodes import health_of
from enforcement.enums import NodeState
from enforcement.models import BillAccount, ReadingCount, ServingNode
from enforcement.rules.readings import Outcome
from enforcement.rules.reconcile import Verdict

LOOKED_BACK = timedelta(days=1)
NANOS_PER_USD = 1_000_000_000

# Each row once for each side that tells more or less than was metered; a row may have an engine's
# count and a bill's. Found, not begun, in the last day: bills come late.
_DRIFT = """
SELECT side, CASE WHEN apart > 0 THEN 'unmetered' ELSE 'uncounted' END, cause_kind, sum(abs(apart))
FROM enforcement_reconciliation r
CROSS JOIN LATERAL (VALUES
    ('engine', produced_prompt_tokens - metered_prompt_tokens),
    ('engine', produced_generation_tokens - metered_generation_tokens),
    ('bill', billed_prompt_tokens - metered_prompt_tokens),
    ('bill', billed_generation_tokens - metered_generation_tokens),
    ('money', billed_nanos - charge_nanos)
) sides (side, apart)
WHERE verdict = %s AND computed_at > %s AND ends_at <= %s AND apart <> 0
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


def of_readings(*, now: datetime) -> Iterator[Metric]:
    """How visits of nodes ended since ever, how late they were, and how the nodes are now."""
    readings = CounterMetricFamily(
        "comptroller_node_readings",
        "Visits of serving nodes by how they ended.",
        labels=["outcome"],
    )
    late = CounterMetricFamily(
        "comptroller_node_readings_late_seconds", "From when readings were due to when they came."
    )
    counted = {row.outcome: row for row in ReadingCount.objects.all()}
    for outcome in Outcome:
        row = counted.get(outcome)
        readings.add_metric([outcome.value], row.readings if row else 0)
    late.add_metric([], sum(row.late_ms for row in counted.values()) / 1_000)
    yield from (readings, late, _health(now))


def _health(now: datetime) -> Metric:
    nodes = GaugeMetricFamily(
        "comptroller_nodes",
        "Serving nodes by their health; those that are gone left out.",
        labels=["health"],
    )
    living = ServingNode.objects.exclude(state=NodeState.GONE)
    known = living.only("state", "last_error", "last_scraped_at", "created_at", "patience_s")
    found = Counter(health_of(node, now=now) for node in known.iterator(2_000))
    for health in ("active", "draining", "unscraped", "away", "failing"):
        nodes.add_metric([health], found[health])
    return nodes


def of_drift(*, now: datetime) -> Iterator[Metric]:
    """Tokens and dollars apart by side, direction and cause, and how old the comparison is."""
    tokens = GaugeMetricFamily(
        "comptroller_drift_tokens_last_day",
        "Tokens by which an engine or a bill differs from what was metered, where that is drift.",
        labels=["side", "direction", "cause"],
    )
    dollars = GaugeMetricFamily(
        "comptroller_drift_dollars_last_day",
        "Dollars by which a bill differs from what was charged, where that is drift.",
        labels=["direction", "cause"],
    )
    for side, direction, cause, apart in _drift(now):
        if side == "money":
            dollars.add_metric([direction, cause], float(apart) / NANOS_PER_USD)
        else:
            tokens.add_metric([side, direction, cause], float(apart))
    age = GaugeMetricFamily(
        "comptroller_reconciliation_age_seconds", "Since the counts were compared."
    )
    compared = RollupWatermark.objects.filter(name=NAME).first()
    if compared is not None:
        age.add_metric([], max(now - compared.folded_at, timedelta()).total_seconds())
    yield from (tokens, dollars, age)


def of_bills(*, now: datetime) -> Iterator[Metric]:
    """How fresh the bills are that are asked for each day: as many series as accounts are named."""
    labels = ["provider", "account"]
    age = GaugeMetricFamily(
        "comptroller_bill_age_seconds",
        "Since a provider last told its bill; if it never did, since it is to be asked.",
        labels=labels,
    )
    attempts = GaugeMetricFamily(
        "comptroller_bill_attempts", "Attempts since a bill was told.", labels=labels
    )
    for row in BillAccount.objects.order_by("provider", "account"):
        named = [row.provider, row.account]
        since = row.succeeded_at or row.created_at
        age.add_metric(named, max(now - since, timedelta()).total_seconds())
        attempts.add_metric(named, row.attempts)
    yield from (age, attempts)


def _drift(now: datetime) -> list[tuple[str, str, str, int]]:
    with connection.cursor() as cursor:
        cursor.execute(_DRIFT, [Verdict.DRIFTS.value, now - LOOKED_BACK, now - SETTLED])
        return list(cursor.fetchall())
