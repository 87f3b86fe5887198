"""`manage.py rerate_usage`, behind `comptroller prices rerate`."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Format, Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

MOST_ROWS = 50


class Command(BaseCommand):
    help = "Charge recorded calls again at the prices of now. Books nothing without --apply."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("wish", help="which calls, as a JSON object, as the API takes it")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.api.rerate import RerateSerializer, ReratingSerializer, told
        from budgets.domain.rerate import Wish, preview, rerate
        from budgets.errors import RerateError
        from controlplane.audit.domain import Actor

        organization = organization_of(options)
        given = RerateSerializer(data=json.loads(options["wish"]))
        if not given.is_valid():
            raise CommandError("; ".join(f"{k}: {v[0]}" for k, v in given.errors.items()))
        values = dict(given.validated_data)
        booked, reason = values.pop("apply"), values.pop("reason")
        wish, now = Wish(organization_id=organization.id, **values), timezone.now()
        actor = Actor.system("command line")
        try:
            result = (
                rerate(wish, actor=actor, reason=reason, now=now)
                if booked
                else preview(wish, now=now)
            )
        except RerateError as error:
            raise CommandError(f"{error.field}: {error}") from error
        data = ReratingSerializer(told(result, applied=booked)).data
        _tell(data, output_of(options))


def _tell(data: dict[str, Any], output: Output) -> None:
    if output.format is Format.JSON:
        output.result(data)
        return
    for name, columns in (
        ("models", ["model", "calls", "old_charge", "new_charge", "delta"]),
        ("balances", ["name", "value", "window_start", "calls", "spent", "overrun"]),
    ):
        rows = data[name]
        output.table(columns, [[row[one] for one in columns] for row in rows[:MOST_ROWS]])
        output.text(f"… and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else "")
    output.result({k: v for k, v in data.items() if not isinstance(v, list)})
    if data["left_out"]:
        output.hint(f"left as they are, for example: {' '.join(map(str, data['left_out']))}")
    if not data["applied"] and data["rated"]:
        output.hint("nothing was booked: say --apply --reason …")
