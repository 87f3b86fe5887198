"""`manage.py archive_usage`, behind `comptroller usage archive`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.identity.commands import add_format, output_of

COLUMNS = ("day", "file", "events", "size_bytes", "sha256")


class Command(BaseCommand):
    help = "Move old days of usage events into Parquet files, each compared before it is let go."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--keep-days", type=int, default=0, help="how many days stay")
        parser.add_argument("--archive-dir", default="", help="where the files are")
        parser.add_argument("--dry-run", action="store_true", help="only say what is due")
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.domain.archive import archive_day, due_days
        from budgets.errors import ArchiveError

        keep_days = options["keep_days"] or settings.USAGE_KEEP_DAYS
        folder = options["archive_dir"] or settings.ARCHIVE_DIR
        if not keep_days:
            raise CommandError("say --keep-days, or set COMPTROLLER_USAGE_KEEP_DAYS")
        if not folder:
            raise CommandError("say --archive-dir, or set COMPTROLLER_ARCHIVE_DIR")
        output, now = output_of(options), timezone.now()
        done: list[list[str]] = []
        try:
            days = due_days(keep_days=keep_days, now=now)
            for day in () if options["dry_run"] else days:
                row = archive_day(day, folder=Path(folder), now=now)
                size = str(row.size_bytes)
                done.append([str(day), row.file, str(row.events), size, row.digest.hex()])
        except ArchiveError as error:
            raise CommandError(str(error)) from error
        finally:
            if done:
                output.table(COLUMNS, done)
        if options["dry_run"]:
            output.table(("day",), [[str(day)] for day in days])
        if not days:
            output.text("No day is due.")
