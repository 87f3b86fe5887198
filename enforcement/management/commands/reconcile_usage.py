"""`manage.py reconcile_usage`, behind `comptroller reconcile`."""

from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

COLUMNS = (
    *("node", "provider", "model", "starts_at", "ends_at", "verdict"),
    *("metered_prompt_tokens", "produced_prompt_tokens", "billed_prompt_tokens"),
    *("metered_generation_tokens", "produced_generation_tokens", "billed_generation_tokens"),
    *("charge_nanos", "billed_nanos", "cause_kind", "cause"),
)
LONGEST_H = 31 * 24


class Command(BaseCommand):
    help = "Metered use beside engine counters and bills, by the hour. Exits 1 on drift."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--hours", type=int, default=24, help="how far back")
        parser.add_argument("--until", default="", help="the end (ISO 8601); default: now")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from enforcement.domain.drift import configured_threshold
        from enforcement.domain.reconciliation import reconcile, reconciled
        from enforcement.rules.reconcile import Verdict

        organization = organization_of(options)
        if not 1 <= options["hours"] <= LONGEST_H:
            raise CommandError(f"--hours is 1 to {LONGEST_H}")
        now = timezone.now()
        until = _instant(options["until"], now)
        window: dict[str, Any] = {
            "organization_id": organization.id,
            "since": until - timedelta(hours=options["hours"]),
            "until": until,
        }
        by = configured_threshold()
        reconcile(**window, now=now, by=by)
        rows = reconciled(**window)
        output = output_of(options)
        output.table(COLUMNS, [[_cell(row, name) for name in COLUMNS] for row in rows])
        if not rows:
            output.text("Nothing was metered, produced or billed in this time.")
        drifting = sum(row.verdict == Verdict.DRIFTS for row in rows)
        if drifting:
            raise CommandError(
                f"{drifting} of {len(rows)} rows drift by more than {by.per_mille} ‰"
            )


def _instant(text: str, now: datetime) -> datetime:
    """Raises CommandError: not an instant with its offset."""
    if not text:
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"--until: {error}") from error
    if at.tzinfo is None:
        raise CommandError("--until needs an offset, as in 2026-05-13T11:00Z")
    return at


def _cell(row: Any, name: str) -> Any:
    value = getattr(row, name)
    return value.isoformat() if isinstance(value, datetime) else value
