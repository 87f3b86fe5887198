"""`manage.py begin_incarnation`, behind `comptroller ledger restored`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone


class Command(BaseCommand):
    help = "Begin a new incarnation of the ledger, after a restore that it cannot notice."

    def handle(self, *_args: Any, **_options: Any) -> None:
        from budgets.domain.incarnation import begin_incarnation

        begun = begin_incarnation(now=timezone.now())
        self.stdout.write(f"incarnation {begun.id} begins; spools are asked for their leases")
