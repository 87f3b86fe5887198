"""`manage.py seed_usage`, behind `comptroller seed`."""

import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Format, Output


class Command(BaseCommand):
    help = "Make an organization with made-up use of ninety days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--size", default="small", choices=["small", "large"])
        parser.add_argument("--slug", default="seed")
        parser.add_argument("--format", default="auto", choices=[kind.value for kind in Format])

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.domain.seed import SHAPES, Size, seed
        from budgets.errors import SeedError

        shape = SHAPES[Size(options["size"])]
        begun = time.monotonic()

        def told(made: int) -> None:
            took = time.monotonic() - begun
            sys.stderr.write(f"{made:,} of {shape.events:,} events  {took:.0f} s\n")

        try:
            events = seed(slug=options["slug"], shape=shape, now=timezone.now(), told=told)
        except SeedError as error:
            raise CommandError(str(error)) from error
        took = time.monotonic() - begun
        body = {"organization": options["slug"], "events": events, "seconds": int(took)}
        Output(Format(options["format"])).result(body)
