"""Thin: each loads what it needs, calls one domain function, and may run twice."""

from celery import shared_task

BATCH = 250  # nodes of one task: all of them are read at once


@shared_task(name="enforcement.scan_nodes", ignore_result=True, soft_time_limit=8, time_limit=10)  # type: ignore[untyped-decorator]
def scan_nodes() -> None:
    """Visits of all nodes that are due, in batches. Beat: every 5 s."""
    from django.utils import timezone

    from enforcement.domain.gather import EVERY, due_nodes

    due = [str(node_id) for node_id in due_nodes(now=timezone.now())]
    for first in range(0, len(due), BATCH):
        scrape_nodes.apply_async(
            kwargs={"node_ids": due[first : first + BATCH]}, expires=EVERY.total_seconds()
        )


@shared_task(name="enforcement.scrape_nodes", ignore_result=True, soft_time_limit=12, time_limit=15)  # type: ignore[untyped-decorator]
def scrape_nodes(*, node_ids: list[str]) -> None:
    """Read the counters of a batch. The next tick brings what this one missed."""
    from uuid import UUID

    from django.utils import timezone

    from enforcement.domain.scraping import scrape_batch

    scrape_batch([UUID(node_id) for node_id in node_ids], timezone.now())


@shared_task(
    name="enforcement.forget_samples", ignore_result=True, soft_time_limit=50, time_limit=60
)  # type: ignore[untyped-decorator]
def forget_samples() -> None:
    """Delete old samples of nodes. Beat: hourly."""
    from django.utils import timezone

    from enforcement.domain.gather import forget_samples as forget

    forget(now=timezone.now())


@shared_task(
    name="enforcement.discover_nodes", ignore_result=True, soft_time_limit=50, time_limit=60
)  # type: ignore[untyped-decorator]
def discover_nodes() -> None:
    """Take up what the configured places say of nodes. Beat: every minute."""
    from django.utils import timezone

    from enforcement.domain.discovery import discover_configured

    discover_configured(now=timezone.now())


@shared_task(
    name="enforcement.reconcile_usage", ignore_result=True, soft_time_limit=240, time_limit=270
)  # type: ignore[untyped-decorator]
def reconcile_usage() -> None:
    """Compare metered use with engine counters, and tell of drift. Beat: every 5 minutes."""
    from django.utils import timezone

    from enforcement.domain.drift import keep_reconciled

    keep_reconciled(now=timezone.now())


@shared_task(
    name="enforcement.fetch_bills", ignore_result=True, soft_time_limit=240, time_limit=270
)  # type: ignore[untyped-decorator]
def fetch_bills() -> None:
    """Ask a provider for a bill that is due: one at a time. Beat: every minute."""
    from django.utils import timezone

    from enforcement.domain.bills.timer import fetch_due

    fetch_due(now=timezone.now())


@shared_task(
    name="enforcement.measure_activity", ignore_result=True, soft_time_limit=240, time_limit=270
)  # type: ignore[untyped-decorator]
def measure_activity() -> None:
    """Sum up how long nodes worked and waited. Beat: every 5 minutes."""
    from django.utils import timezone

    from enforcement.domain.activity import measure_activity as measure

    measure(now=timezone.now())


@shared_task(
    name="enforcement.watch_thresholds", ignore_result=True, soft_time_limit=20, time_limit=30
)  # type: ignore[untyped-decorator]
def watch_thresholds() -> None:
    """Act on the balances that changed a moment ago. Beat: every second."""
    from datetime import timedelta

    from django.utils import timezone

    from enforcement.domain.thresholds import watch

    now = timezone.now()
    watch(now=now, since=now - timedelta(seconds=15))


@shared_task(
    name="enforcement.review_thresholds", ignore_result=True, soft_time_limit=50, time_limit=60
)  # type: ignore[untyped-decorator]
def review_thresholds() -> None:
    """Judge every balance, and end what is over. Beat: every 10 s."""
    from django.utils import timezone

    from enforcement.domain.thresholds import retire_firings, watch

    now = timezone.now()
    watch(now=now)
    retire_firings(now=now)
