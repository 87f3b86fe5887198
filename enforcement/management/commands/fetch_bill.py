"""`manage.py fetch_bill`, behind `comptroller reconcile fetch-bill`."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

LONGEST_DAYS = 31


class Command(BaseCommand):
    help = "Ask a provider's usage and cost APIs for its bill, keep it, and reconcile its time."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("provider", help="openai or anthropic")
        parser.add_argument("--days", type=int, default=2, help="how far back, whole days of UTC")
        parser.add_argument("--base-url", default="", help="a gateway in front of the provider")
        parser.add_argument("--account", default="", help="whose bill, where there are several")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from controlplane.audit.domain import Actor
        from controlplane.env import env_secret
        from enforcement.domain.bills.fetching import SOURCES, fetch_bill
        from enforcement.domain.bills.storing import keep_bill
        from enforcement.errors import BillError
        from enforcement.rules.billplan import BillPlan, midnight_of

        organization = organization_of(options)
        source = SOURCES.get(options["provider"])
        if source is None:
            raise CommandError(f"bills can be asked of {', '.join(SOURCES)}")
        if not 1 <= options["days"] <= LONGEST_DAYS:
            raise CommandError(f"--days is 1 to {LONGEST_DAYS}")
        variable = BillPlan(source.name).key_variable
        key = env_secret(variable)
        if not key:
            raise CommandError(f"set {variable} to an administrator's key of {source.name}")
        now = timezone.now()
        try:
            kept = keep_bill(
                organization_id=organization.id,
                lines=fetch_bill(
                    source,
                    key=key,
                    since=midnight_of(now) - timedelta(days=options["days"]),
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
        output_of(options).result(kept._asdict())
