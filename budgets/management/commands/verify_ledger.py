"""`manage.py verify_ledger`: compute every balance again from the journal, and compare."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Compare all balances with their transfers and leases. Exits 1 when one differs."

    def handle(self, *_args: Any, **_options: Any) -> None:
        from budgets.domain.verify import verify

        report = verify()
        for difference in report.differences:
            self.stderr.write(
                f"balance {difference.balance_id}: row {tuple(difference.row)},"
                f" journal {tuple(difference.journal)}, leases hold"
                f" {difference.leased_held} and {difference.leased_suspense} in suspense"
            )
        for balance_id, amount in report.unexplained.items():
            self.stdout.write(f"balance {balance_id}: {amount} settled without a usage event")
        if not report.holds:
            raise CommandError(f"{len(report.differences)} of {report.balances} balances differ")
        self.stdout.write(f"{report.balances} balances agree with their journal")
