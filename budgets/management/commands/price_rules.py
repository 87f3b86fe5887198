"""`manage.py price_rules`, behind `comptroller prices alias`, `discount`, `rules` and `end`."""

import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

_COLUMNS = ("id", "kind", "says", "valid_from", "valid_to", "reason")


class Command(BaseCommand):
    help = "List an organization's aliases and discounts, set one, or end one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--set", default="", help="a rule, as a JSON object, as the API has it")
        parser.add_argument("--end", default="", help="the id of one that ends now")
        parser.add_argument("--reason", default="")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.errors import PriceError, PriceRuleNotFoundError
        from budgets.models import PriceRule

        organization = organization_of(options)
        try:
            _change(organization.id, options)
        except PriceError as error:
            raise CommandError(f"{error.field}: {error.message}") from error
        except PriceRuleNotFoundError as error:
            raise CommandError("no such rule, or it has ended") from error
        rows = PriceRule.objects.filter(organization=organization).order_by("valid_from", "id")
        _tell(list(rows), output_of(options))


def _change(organization_id: UUID, options: dict[str, Any]) -> None:
    from budgets.api.pricerules import NewPriceRuleSerializer
    from budgets.domain.pricerules import end_rule, set_rule
    from controlplane.audit.domain import Actor

    who: dict[str, Any] = {
        "organization_id": organization_id,
        "actor": Actor.system("command line"),
        "now": timezone.now(),
    }
    if options["set"]:
        given = NewPriceRuleSerializer(data=json.loads(options["set"]))
        if not given.is_valid():
            raise CommandError("; ".join(f"{k}: {v[0]}" for k, v in given.errors.items()))
        set_rule(**who, **given.to_arguments())
    if options["end"]:
        try:
            rule_id = UUID(options["end"])
        except ValueError as error:
            raise CommandError(f"{options['end']!r} is no id") from error
        end_rule(**who, rule_id=rule_id, reason=options["reason"])


def _tell(rules: list[Any], output: Output) -> None:
    from budgets.api.pricerules import PriceRuleSerializer

    shown = [PriceRuleSerializer(rule).data for rule in rules]
    output.table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in shown])
    if not rules:
        output.hint("no alias and no discount: `comptroller prices alias`, `… discount`")
