"""`manage.py verify_ledger`, behind `comptroller audit verify`: nothing but what was written."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.identity.commands import add_format, output_of


class Command(BaseCommand):
    help = (
        "Compute all balances again from their transfers and leases, and check the hash chain over"
        " the transfers. Exits 1 when anything differs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--organization", default="", help="the slug of one; default: all")
        parser.add_argument("--head", default="", help="a digest kept elsewhere: must be there")
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.domain.seals import check_chain, holds_digest
        from budgets.domain.verify import verify
        from controlplane.identity.models import Organization

        begun = time.monotonic()
        slugs = {row.id: row.slug for row in Organization.objects.all()}
        chosen = [key for key, slug in slugs.items() if slug == options["organization"]]
        if options["organization"] and not chosen:
            raise CommandError(f"no organization {options['organization']!r}")
        scope = chosen[0] if chosen else None
        report, chain = verify(organization_id=scope), check_chain(organization_id=scope)
        for difference in report.differences:
            self.stderr.write(
                f"balance {difference.balance_id}: row {tuple(difference.row)},"
                f" journal {tuple(difference.journal)}, leases hold"
                f" {difference.leased_held} and {difference.leased_suspense} in suspense"
            )
        for broken in chain.breaks:
            self.stderr.write(
                f"{slugs[broken.organization_id]}, seal {broken.number}: {broken.what}"
            )
        lost = bool(options["head"]) and not holds_digest(options["head"], organization_id=scope)
        if lost:
            self.stderr.write(f"no seal has the digest {options['head']}: the chain was rewritten")
        output = output_of(options)
        output.result(
            {
                "verdict": "intact" if report.holds and not chain.breaks and not lost else "broken",
                "balances": report.balances,
                "balances_that_differ": len(report.differences),
                "without_a_usage_event": len(report.unexplained),
                "events_set_aside": report.rejected_events,
                "events_set_aside_astray": report.rejected_astray,
                "ratings_astray": report.ratings_astray,
                "transfers": chain.sealed + chain.unsealed,
                "not_sealed_yet": chain.unsealed,
                "seals": chain.seals,
                "seals_broken": len(chain.breaks),
                "heads": " ".join(
                    f"{slugs[head.organization_id]}:{head.number}:{head.digest}"
                    for head in chain.heads
                ),
                "seconds": f"{time.monotonic() - begun:.1f}",
            }
        )
        if not report.holds or chain.breaks or lost:
            raise CommandError("the ledger is not what was written")
