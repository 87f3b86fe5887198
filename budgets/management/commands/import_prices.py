"""`manage.py import_prices`, behind `comptroller prices import` and `diff`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Format, Output
from controlplane.identity.commands import add_format, organization_of, output_of

MOST_ROWS = 200


class Command(BaseCommand):
    help = "Import prices of a file, or of the installed genai-prices. Safe to run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", default="", help="- for stdin; none: as installed")
        parser.add_argument("--as", dest="form", default="", help="genai-prices, litellm or csv")
        parser.add_argument("--organization", default="", help="as the own rates of this one")
        parser.add_argument("--confirm", action="append", default=[], help="a jump that is meant")
        parser.add_argument("--reason", default="")
        parser.add_argument("--dry-run", action="store_true", help="only tell what would change")
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.errors import PriceError

        output = output_of(options)
        try:
            diff = _imported(options)
        except PriceError as error:
            raise CommandError(f"{error.message}{_advice(error.field)}") from error
        _tell(diff, output, booked=not options["dry_run"])


def _advice(field: str) -> str:
    return ". Look at them with `diff`, then repeat --confirm MODEL" if field == "confirm" else ""


def _imported(options: dict[str, Any]) -> Any:
    from budgets.domain.pricefiles import PriceFormat, format_of, read_prices
    from budgets.domain.priceimport import import_catalogue, import_prices
    from controlplane.audit.domain import Actor

    now = timezone.now()
    if not options["file"]:
        return import_catalogue(now=now, confirmed=options["confirm"], dry_run=options["dry_run"])
    content = _content(options["file"])
    try:
        named = PriceFormat(options["form"]) if options["form"] else None
    except ValueError as error:
        raise CommandError(f"--as is one of {', '.join(PriceFormat)}") from error
    return import_prices(
        read_prices(content, named or format_of(options["file"], content)),
        organization_id=_organization_id(options),
        actor=Actor.system("command line"),
        now=now,
        reason=options["reason"],
        confirmed=options["confirm"],
        dry_run=options["dry_run"],
    )


def _content(file: str) -> bytes:
    from budgets.domain.pricefiles import MOST_BYTES

    try:
        if file == "-":
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error


def _organization_id(options: dict[str, Any]) -> UUID | None:
    """Whose own rates; without a name it is the catalogue of all."""
    return organization_of(options).id if options["organization"] else None


def _tell(diff: Any, output: Output, *, booked: bool) -> None:
    from budgets.queries.pricediff import counts, lines

    rows = lines(diff)
    facts = counts(diff) | {"applied": booked}
    if output.format is Format.JSON:
        output.result(facts | {"changes": rows, "left_out_models": diff.left_out})
        return
    columns = ["model", "what", "rate", "before", "after", "starts_at", "jump"]
    output.table(columns, [[row[name] for name in columns] for row in rows[:MOST_ROWS]])
    output.text(f"… and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else "")
    output.result(facts)
    if diff.held or diff.doubtful:
        output.hint("a jump is taken only with --confirm MODEL for each model")
    if not booked:
        output.hint("nothing was changed: `comptroller prices import` takes it")
