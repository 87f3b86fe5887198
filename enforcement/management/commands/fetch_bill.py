"""`manage.py fetch_bill`, behind `comptroller reconcile fetch-bill`."""

import os
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Format, Output

LONGEST_DAYS = 31


class Command(BaseCommand):
    help = "Ask a provider's usage and cost APIs for its bill, keep it, and reconcile its time."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("provider", help="openai or anthropic")
        parser.add_argument("--days", type=int, default=2, help="how far back, whole days of UTC")
        parser.add_argument("--base-url", default="", help="a gateway in front of the provider")
        parser.add_argument("--account", default="", help="whose bill, where there are several")
        parser.add_argument("--organization", default="", help="its slug, where there are several")
        parser.add_argument("--format", default="auto", choices=[kind.value for kind in Format])

    def handle(self, *_args: Any, **options: Any) -> None:
        from controlplane.audit.domain import Actor
        from controlplane.identity.queries import find_organization
        from enforcement.domain.bills.fetching import SOURCES, fetch_bill
        from enforcement.domain.bills.storing import keep_bill
        from enforcement.errors import BillError

        organization = find_organization(options["organization"])
        if organization is None:
            raise CommandError("no such organization; name one with --organization")
        source = SOURCES.get(options["provider"])
        if source is None:
            raise CommandError(f"bills can be asked of {', '.join(SOURCES)}")
        if not 1 <= options["days"] <= LONGEST_DAYS:
            raise CommandError(f"--days is 1 to {LONGEST_DAYS}")
        key = os.environ.get(source.key_variable, "")
        if not key:
            raise CommandError(
                f"set {source.key_variable} to an administrator's key of {source.name}"
            )
        now = timezone.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        try:
            kept = keep_bill(
                organization_id=organization.id,
                lines=fetch_bill(
                    source,
                    key=key,
                    since=midnight - timedelta(days=options["days"]),
                    until=now.replace(minute=0, second=0, microsecond=0),
                    base_url=options["base_url"],
                ),
                account=options["account"][:64],
                source=options["base_url"] or source.base_url,
                actor=Actor.system("command line"),
                now=now,
            )
        except BillError as error:
            raise CommandError(f"{source.name}: {error}") from error
        Output(Format(options["format"])).result(kept._asdict())
