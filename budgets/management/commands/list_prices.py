"""`manage.py list_prices`, behind `comptroller prices list`."""

import csv
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from controlplane.cli.output import Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

_COLUMNS = ("name", "input", "cached_input", "cache_write", "output", "also", "own", "source")


class Command(BaseCommand):
    help = "List the prices that hold now, in dollars per million tokens."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", default="", help="only names with this in them")
        parser.add_argument("--provider", default="", help="only this provider")
        parser.add_argument("--own", action="store_true", help="only own rates")
        parser.add_argument("--csv", action="store_true", help="as `import` reads it")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.domain.prices import prices_at

        organization = organization_of(options)
        rows = [
            row
            for row in prices_at(organization_id=organization.id, now=timezone.now())
            if options["model"] in row.model
            and options["provider"] in ("", row.provider)
            and (row.own or not options["own"])
        ]
        if options["csv"]:
            _write_csv(rows)
        else:
            _tell(rows, output_of(options))


def _write_csv(rows: list[Any]) -> None:
    from budgets.domain.pricecsv import COLUMNS, rows_of
    from budgets.domain.priceversions import key_of, span_of

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerows(rows_of(key_of(row), span_of(row)))


def _tell(rows: list[Any], output: Output) -> None:
    output.table(_COLUMNS, [_cells(row) for row in rows])
    if not rows:
        output.hint("no price fits; `comptroller prices import` brings some")


def _cells(row: Any) -> list[Any]:
    from budgets.domain.priceversions import key_of, span_of
    from enforcement.rules.money import usd_text

    span = span_of(row)
    rates = span.rates
    also = [*rates.own_kinds, *span.variants, *(f"> {t.above_input_tokens}" for t in span.tiers)]
    plain = (rates.input, rates.cached_input, rates.cache_write, rates.output)
    source = f"{row.source} {row.source_version}".strip()
    dollars = [usd_text(nanos) for nanos in plain]
    return [key_of(row).name, *dollars, ", ".join(also), row.own, source]
