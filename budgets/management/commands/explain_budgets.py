"""`manage.py explain_budgets`, behind `comptroller budgets explain`."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Format, Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of


class Command(BaseCommand):
    help = "Explain a request: every budget it matches, what is free, and what would happen."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("wish", help="the request as a JSON object, as the API takes it")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.api.explain import ExplainedSerializer, WishSerializer
        from budgets.queries.explain import Wish, explain_request
        from controlplane.identity.queries import find_agent

        organization = organization_of(options)
        given = WishSerializer(data=json.loads(options["wish"]))
        if not given.is_valid():
            raise CommandError(
                "; ".join(f"{name}: {errors[0]}" for name, errors in given.errors.items())
            )
        values = dict(given.validated_data)
        name = values.pop("agent")
        agent = find_agent(organization.id, name)
        if agent is None:
            raise CommandError(f"no agent {name!r} in {organization.slug}")
        found = explain_request(Wish(agent=agent, **values), now=timezone.now())
        _tell(ExplainedSerializer(found).data, output_of(options))


def _tell(data: dict[str, Any], output: Output) -> None:
    if output.format is Format.JSON:
        output.result(data)
        return
    columns = ["budget", "mode", "value", "unit", "limit", "spent", "held", "free", "need", "then"]
    output.table(
        columns,
        [
            [
                row["name"],
                row["mode"] if row["state"] == "armed" else f"{row['mode']}, {row['state']}",
                *(row[name] for name in columns[2:-1]),
                row["outcome"],
            ]
            for row in data["budgets"]
        ],
    )
    output.text()
    output.text(f"{data['outcome']}: {data['message'] or 'the request would be let through'}")
    if data["outcome"] not in ("allow", "count"):
        names = ", ".join(f"{person['name']} <{person['email']}>" for person in data["can_raise"])
        output.text(f"who can raise it: {names or 'nobody yet'}")
