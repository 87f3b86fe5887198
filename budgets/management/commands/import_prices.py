"""`manage.py import_prices [--dry-run]`: bring the price catalogue to the installed snapshot."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone


class Command(BaseCommand):
    help = "Import the price catalogue of the installed genai-prices package. Safe to run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only tell what would change")

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.domain.prices import import_catalogue

        diff = import_catalogue(now=timezone.now(), dry_run=options["dry_run"])
        if options["verbosity"] > 1 or options["dry_run"]:
            for sign, keys in (("+", diff.added), ("~", diff.changed)):
                for key in keys:
                    self.stdout.write(f"{sign} {key.provider}:{key.model} ({key.match})")
        self.stdout.write(
            f"genai-prices {diff.source_version}: {len(diff.added)} new,"
            f" {len(diff.changed)} changed, {diff.unchanged} unchanged, {diff.kept} only here"
        )
