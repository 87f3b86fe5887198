"""`manage.py export_usage`, behind `comptroller usage export`."""

import os
import sys
from argparse import ArgumentParser
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.identity.commands import add_organization, organization_of


class Command(BaseCommand):
    help = "Charges of whole days as FOCUS rows, to standard output or a file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--spec", default="focus-1.4", choices=["focus-1.3", "focus-1.4"])
        parser.add_argument("--output", default="csv", choices=["csv", "parquet"])
        parser.add_argument("--since", default="")
        parser.add_argument("--until", default="")
        parser.add_argument("--file", default="-", help="- is standard output")
        add_organization(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.api.usage import days_asked
        from budgets.errors import UsageQueryError
        from budgets.queries.explore import check_days
        from budgets.queries.focus import COLUMNS, Version, hours_of
        from budgets.queries.focusfiles import Output, written

        organization = organization_of(options)
        version = Version(options["spec"])
        try:
            since, until = days_asked(
                _day(options["since"]), _day(options["until"]), now=timezone.now()
            )
            check_days(since, until)
            rows = hours_of(organization, since, until, version)
            pieces = written(COLUMNS[version], rows, Output(options["output"]))
        except UsageQueryError as error:
            raise CommandError(f"{error.field}: {error}") from error
        if options["file"] == "-":
            _write_out(pieces)
            return
        path = Path(options["file"])
        try:
            _write_file(pieces, path)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise CommandError(f"{text!r} is no day: write YYYY-MM-DD") from error


def _write_out(pieces: Any) -> None:
    """To standard output; a reader that has enough, as `head`, is no failure."""
    try:
        _write(pieces, sys.stdout.buffer)
    except BrokenPipeError:  # and Python's own last flush would fail once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_file(pieces: Any, path: Path) -> None:
    """The whole file, or none: a full disk leaves no half of it under this name."""
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            _write(pieces, file)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write(pieces: Any, file: BinaryIO) -> None:
    file.writelines(pieces)
    file.flush()
