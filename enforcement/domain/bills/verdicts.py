"""Verdicts of bills, and their likely causes, put into rows of reconciliation."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from enforcement.domain.bills.comparing import Subject, doubts
from enforcement.domain.enginerows import tell
from enforcement.models import Reconciliation
from enforcement.rules.billing import bill_cause, judge_bill, surest
from enforcement.rules.reconcile import Threshold, Verdict

Standing = tuple[Subject, Reconciliation]


def judge_bills(
    organization_id: UUID, standing: Iterable[Standing], by: Threshold
) -> list[Reconciliation]:
    """The rows, with what bills say of them; what an engine's count has shown stays."""
    drifting: list[Standing] = []
    rows: list[Reconciliation] = []
    for subject, row, verdict in _verdicts(standing, by):
        before = Verdict(row.verdict) if row.verdict else Verdict.ALONE
        row.verdict = surest(before, verdict).value
        rows.append(row)
        if row.verdict == before.value and row.cause:
            continue
        if verdict is Verdict.DRIFTS:
            drifting.append((subject, row))
        else:
            tell(row, bill_cause(subject.count, by) if verdict is Verdict.UNKNOWN else None)
    found = doubts(organization_id, [subject for subject, _ in drifting])
    for (_, row), count in zip(drifting, found, strict=True):
        tell(row, bill_cause(count, by))
    return rows


def _verdicts(
    standing: Iterable[Standing], by: Threshold
) -> list[tuple[Subject, Reconciliation, Verdict]]:
    """Bills of one model and one length are looked at beside each other."""
    series: dict[tuple[str, str, timedelta], list[Standing]] = defaultdict(list)
    for subject, row in standing:
        period = subject.bill.period
        series[subject.bill.provider, subject.name, period.ends_at - period.starts_at].append(
            (subject, row)
        )
    return [
        (subject, row, verdict)
        for of_model in series.values()
        for (subject, row), verdict in zip(
            of_model, judge_bill([subject.count for subject, _ in of_model], by), strict=True
        )
    ]
