"""`manage.py measure_prices`, behind `comptroller prices measure`."""

from argparse import ArgumentParser
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from controlplane.cli.output import Format, Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

_PER_MILLE = 1000
_SHOWN = ("input", "cached_input", "cache_write", "output")
_NODE_COLUMNS = (
    "node",
    "cost",
    "hours",
    "idle_hours",
    "hours_left_out",
    "prompt_tokens",
    "cached_tokens",
    "answer_tokens",
)


class Command(BaseCommand):
    help = "Derive the rates of a self-hosted model from what its nodes cost and made."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model")
        parser.add_argument("--since", required=True, help="a whole hour, as ISO 8601")
        parser.add_argument("--until", required=True, help="before this one")
        parser.add_argument("--answer-weight", default="4", help="of an answer's token")
        parser.add_argument("--cached-weight", default="0.1", help="of a cached prompt token")
        parser.add_argument("--apply", action="store_true", help="make them the own rates")
        parser.add_argument("--confirm", action="store_true", help="a hundredfold jump is meant")
        parser.add_argument("--reason", default="")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.errors import PriceError
        from controlplane.audit.domain import Actor
        from enforcement.domain.noderates import measure, set_measured_price
        from enforcement.errors import NodeCostError
        from enforcement.rules.noderates import Weights

        organization = organization_of(options)
        who: dict[str, Any] = {"organization_id": organization.id, "now": timezone.now()}
        try:
            weights = Weights(
                answer_per_mille=_per_mille(options["answer_weight"]),
                cached_per_mille=_per_mille(options["cached_weight"]),
            )
            found = measure(
                model=options["model"],
                since=_instant(options["since"]),
                until=_instant(options["until"]),
                weights=weights,
                **who,
            )
            if options["apply"]:
                set_measured_price(
                    found,
                    actor=Actor.system("command line"),
                    reason=options["reason"],
                    confirmed=options["confirm"],
                    **who,
                )
        except (NodeCostError, PriceError) as error:
            raise CommandError(str(error)) from error
        _tell(found, output_of(options), applied=options["apply"])


def _per_mille(text: str) -> int:
    try:
        scaled = Decimal(text) * _PER_MILLE
        if scaled == scaled.to_integral_value():
            return int(scaled)
    except (ArithmeticError, ValueError):
        pass
    raise CommandError(f"{text!r} is no weight: a decimal with up to three places")


def _instant(text: str) -> datetime:
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise CommandError(f"{text!r} is no instant: like 2026-05-01T00:00Z")
    return at


def _tell(found: Any, output: Output, *, applied: bool) -> None:
    from enforcement.rules.money import usd_text

    rates = {kind: usd_text(getattr(found.rates, kind)) for kind in _SHOWN}
    facts = {"model": found.model, **rates, "applied": applied}
    if output.format is Format.JSON:
        output.result(facts | {"evidence": found.evidence, "jumps": found.jumps})
        return
    nodes = found.evidence["nodes"]
    output.table(_NODE_COLUMNS, [[node[name] for name in _NODE_COLUMNS] for node in nodes])
    output.result(facts)
    for said in found.jumps:
        output.hint(f"{said}: it is taken only with --confirm")
    if not applied:
        output.hint("nothing was changed: say --apply --reason …")
