"""`manage.py seed_usage`, behind `comptroller seed`."""

import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.identity.commands import add_format, output_of


class Command(BaseCommand):
    help = "Make an organization with made-up use of ninety days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--size", default="small", choices=["small", "large"])
        parser.add_argument("--slug", default="seed")
        add_format(parser)

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
        output_of(options).result(body)
