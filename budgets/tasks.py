"""Thin: each loads what it needs, calls one domain function, and may run twice."""

from celery import shared_task


@shared_task(name="budgets.fold_usage", ignore_result=True, soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def fold_usage() -> None:
    """Hourly rollups from the watermark. Beat: every 10 s."""
    from django.utils import timezone

    from budgets.domain.rollups import fold_usage as fold

    fold(now=timezone.now())


@shared_task(
    name="budgets.prepare_partitions", ignore_result=True, soft_time_limit=50, time_limit=60
)  # type: ignore[untyped-decorator]
def prepare_partitions() -> None:
    """Partitions of usage events for the days ahead. Beat: hourly."""
    from django.utils import timezone

    from budgets.domain.usagestore import prepare_partitions as prepare

    prepare(now=timezone.now())


@shared_task(name="budgets.archive_usage", ignore_result=True, soft_time_limit=280, time_limit=300)  # type: ignore[untyped-decorator]
def archive_usage() -> None:
    """The oldest day of usage events that is due, to its archive. Beat: hourly.

    Nothing is due without `COMPTROLLER_USAGE_KEEP_DAYS`. A day that cannot be archived is logged,
    and each hour a folder that cannot be written, also before a day is due.
    """
    from pathlib import Path

    import structlog
    from django.conf import settings
    from django.utils import timezone

    from budgets.domain.archive import archive_day, check_place, due_days
    from budgets.errors import ArchiveBusyError, ArchiveError

    if not settings.USAGE_KEEP_DAYS:
        return
    log, now = structlog.get_logger("budgets"), timezone.now()
    try:
        check_place(keep_days=settings.USAGE_KEEP_DAYS, folder=settings.ARCHIVE_DIR)
        for day in due_days(keep_days=settings.USAGE_KEEP_DAYS, now=now)[:1]:
            archive = archive_day(day, folder=Path(settings.ARCHIVE_DIR), now=now)
            log.info("usage events archived", file=archive.file, events=archive.events)
    except ArchiveBusyError as error:
        log.info("usage events are archived later", reason=str(error))
    except ArchiveError as error:
        log.exception("usage events were not archived", reason=str(error))


@shared_task(name="budgets.forget_receipts", ignore_result=True, soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def forget_receipts() -> None:
    """Delete receipts of archived events of which no repeat can be booked. Beat: hourly."""
    from django.utils import timezone

    from budgets.domain.receipts import forget_receipts as forget

    forget(now=timezone.now())


@shared_task(name="budgets.announce_prices", ignore_result=True, soft_time_limit=20, time_limit=30)  # type: ignore[untyped-decorator]
def announce_prices() -> None:
    """Tell the sidecars of rates that have begun or ended. Beat: every 30 s."""
    from django.utils import timezone

    from budgets.domain.prices import announce_turned

    announce_turned(now=timezone.now())


@shared_task(name="budgets.verify_ledger", ignore_result=True, soft_time_limit=280, time_limit=300)  # type: ignore[untyped-decorator]
def verify_ledger() -> None:
    """Compare balances with their journal, and the journal with its seals. Beat: hourly.

    A difference is logged as an error.
    """
    import structlog

    from budgets.domain.seals import check_chain
    from budgets.domain.verify import verify

    report = verify(explain=False)  # an hour's interval is no time to read all events ever
    log = structlog.get_logger("budgets")
    for difference in report.differences:
        log.error(
            "balance differs from its journal",
            balance=str(difference.balance_id),
            row=list(difference.row),
            journal=list(difference.journal),
            leased=[difference.leased_held, difference.leased_suspense],
        )
    if report.ratings_astray:
        log.error("ratings do not follow from each other", ratings=report.ratings_astray)
    if report.rejected_astray:
        log.error("events kept aside are not what was said", events=report.rejected_astray)
    chain = check_chain()
    for broken in chain.breaks:
        log.error(
            "the journal is not what was sealed",
            organization=str(broken.organization_id),
            seal=broken.number,
            what=broken.what,
        )
    log.info(
        "ledger verified",
        seals=chain.seals,
        balances=report.balances,
        differences=len(report.differences),
    )


@shared_task(name="budgets.write_off", ignore_result=True, soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def write_off() -> None:
    """Close suspense a day after its window. Beat: hourly."""
    from django.utils import timezone

    from budgets.domain.suspense import write_off_due

    write_off_due(now=timezone.now())


@shared_task(name="budgets.free_permits", ignore_result=True, soft_time_limit=20, time_limit=30)  # type: ignore[untyped-decorator]
def free_permits() -> None:
    """Free the permits of books that died. Beat: every 30 s."""
    from datetime import timedelta

    from django.conf import settings
    from django.utils import timezone

    from budgets.domain.suspense import free_permits_due

    free_permits_due(now=timezone.now(), longest=timedelta(seconds=settings.LONGEST_REQUEST_S))


@shared_task(name="budgets.seal_journal", ignore_result=True, soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def seal_journal() -> None:
    """Add what is settled to the hash chain of the journal. Beat: every 10 s."""
    from django.utils import timezone

    from budgets.domain.seals import seal_journal as seal

    seal(now=timezone.now())


@shared_task(name="budgets.apply_changes", ignore_result=True, soft_time_limit=20, time_limit=30)  # type: ignore[untyped-decorator]
def apply_changes() -> None:
    """Begin and end planned changes that are due. Beat: every 2 s."""
    from django.utils import timezone

    from budgets.domain.changes import apply_due_changes

    apply_due_changes(now=timezone.now())


@shared_task(name="budgets.turn_windows", ignore_result=True, soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def turn_windows() -> None:
    """Let idle rolling windows move on, and carry what ended windows left. Beat: every 5 s."""
    from django.utils import timezone

    from budgets.domain.rings import turn_due
    from budgets.domain.rollover import roll_over_due

    turn_due(now=timezone.now())
    roll_over_due(now=timezone.now())


@shared_task(
    name="budgets.settle_delegations", ignore_result=True, soft_time_limit=20, time_limit=30
)  # type: ignore[untyped-decorator]
def settle_delegations() -> None:
    """End child sessions whose time is over, and settle those that ended. Beat: every 2 s."""
    from django.utils import timezone

    from budgets.domain.delegations import settle_delegations as settle

    settle(now=timezone.now())
