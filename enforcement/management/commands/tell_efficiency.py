"""`manage.py tell_efficiency`, behind `comptroller efficiency`."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of
from enforcement.rules.money import usd_text

NODES = (
    "node", "engine", "cost_usd", "tokens", "tokens_per_usd", "usd_per_million_tokens",
    "millijoules_per_token", "energy", "busy_permille", "prefill_permille", "cached_permille",
    "milli_at_once", "idle_usd", "busy_ms", "idle_ms", "unread_ms", "unpriced_ms",
)  # fmt: skip
CHARGES = ("node", "line", "agent", "model", "cost_usd", "tokens")
MODELS = ("node", "model", "tokens", "cost_usd", "tokens_per_usd", "usd_per_million_tokens")
LONGEST_H = 31 * 24


class Command(BaseCommand):
    help = "What serving nodes cost, what they made of it, and for whom."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--hours", type=int, default=24, help="how far back")
        parser.add_argument("--node", default="", help="only this one, by name")
        parser.add_argument("--charges", action="store_true", help="who the cost was for")
        parser.add_argument("--models", action="store_true", help="by model")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from enforcement.domain.activity import measure_activity
        from enforcement.domain.efficiency import efficiency

        organization = organization_of(options)
        if not 1 <= options["hours"] <= LONGEST_H:
            raise CommandError(f"--hours is 1 to {LONGEST_H}")
        now = timezone.now()
        measure_activity(now=now)
        since = now - timedelta(hours=options["hours"])
        found = [
            row
            for row in efficiency(organization_id=organization.id, since=since, until=now, now=now)
            if options["node"] in ("", row.node)
        ]
        if options["node"] and not found:
            raise CommandError(f"no node {options['node']!r} was read or has a cost")
        _tell(found, output_of(options), options)


def _tell(found: list[Any], output: Output, options: dict[str, Any]) -> None:
    if options["charges"]:
        output.table(CHARGES, [_charge(row, one) for row in found for one in row.charges])
    elif options["models"]:
        output.table(MODELS, [_model(row, one) for row in found for one in row.models])
    else:
        output.table(NODES, [_node(row) for row in found])
    if not found:
        output.text("No serving node was read or has a cost yet: `comptroller nodes` tells more.")


def _node(row: Any) -> list[Any]:
    return [
        *(row.node, row.engine, usd_text(row.cost_nanos), row.tokens, row.tokens_per_usd),
        *(_usd(row.nanos_per_million), row.millijoules_per_token, row.energy_source.value),
        *(row.busy_permille, row.prefill_permille, row.cached_permille, row.milli_at_once),
        *(usd_text(row.idle_nanos), row.busy_ms, row.idle_ms, row.unread_ms, row.unpriced_ms),
    ]


def _charge(row: Any, one: Any) -> list[Any]:
    return [row.node, one.line, one.agent, one.model, usd_text(one.cost_nanos), one.tokens]


def _model(row: Any, one: Any) -> list[Any]:
    return [
        *(row.node, one.model, one.tokens, usd_text(one.cost_nanos), one.tokens_per_usd),
        _usd(one.nanos_per_million),
    ]


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else usd_text(nanos)
