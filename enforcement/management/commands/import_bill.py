"""`manage.py import_bill`, behind `comptroller reconcile import-bill`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.identity.commands import add_format, add_organization, organization_of, output_of


class Command(BaseCommand):
    help = "Read a provider's bill, keep it, and reconcile the time that it is about."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="CSV or JSON; - for stdin")
        parser.add_argument("--provider", default="", help="as calls name it, if not the bill's")
        parser.add_argument("--account", default="", help="whose bill, where there are several")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from controlplane.audit.domain import Actor
        from enforcement.domain.bills.reading import read_bill
        from enforcement.domain.bills.storing import keep_bill
        from enforcement.errors import BillError

        organization = organization_of(options)
        try:
            kept = keep_bill(
                organization_id=organization.id,
                lines=read_bill(_content(options["file"]), provider=options["provider"][:64]),
                account=options["account"][:64],
                source=Path(options["file"]).name,
                actor=Actor.system("command line"),
                now=timezone.now(),
            )
        except (BillError, OSError) as error:
            raise CommandError(f"{options['file']}: {error}") from error
        output_of(options).result(kept._asdict())


def _content(name: str) -> bytes:
    """One byte more than is read at most: then it is refused."""
    from enforcement.domain.bills.reading import MOST_BYTES

    if name == "-":
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MOST_BYTES + 1)
