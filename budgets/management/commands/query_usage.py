"""`manage.py query_usage`, behind `comptroller usage query`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Format, Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

SUMS = ("calls", "cut_calls", "input_tokens", "cached_input_tokens", "output_tokens", "charge")


class Command(BaseCommand):
    help = "Use of whole days by up to two dimensions, the dearest groups first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--group-by", default="model")
        parser.add_argument("--since", default="")
        parser.add_argument("--until", default="")
        parser.add_argument("--filter", action="append", default=[])
        parser.add_argument("--limit", type=int, default=100)
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.api.usage import QuestionSerializer, question_of, told
        from budgets.errors import UsageQueryError
        from budgets.queries.explore import ask

        organization = organization_of(options)
        days = {name: options[name] for name in ("since", "until") if options[name]}
        names = ("group_by", "limit")
        given = QuestionSerializer(data={name: options[name] for name in names} | days)
        if not given.is_valid():
            raise CommandError("; ".join(f"{k}: {v[0]}" for k, v in given.errors.items()))
        try:
            question = question_of(
                organization.id, given.validated_data, words=options["filter"], now=timezone.now()
            )
            body = told(question, ask(question))
        except UsageQueryError as error:
            raise CommandError(f"{error.field}: {error}") from error
        _tell(body, output_of(options))


def _tell(body: dict[str, Any], output: Output) -> None:
    if output.format is Format.JSON:
        output.result(body)
        return
    by = body["group_by"]
    rows = [
        [
            *(group["names"].get(name) or group["key"][name] or "—" for name in by),
            *(group[name] for name in SUMS),
        ]
        for group in body["groups"]
    ]
    total = [*(["total"] + [""] * (len(by) - 1) if by else []), *(body["total"][n] for n in SUMS)]
    output.table([*by, *SUMS], [*(rows if by else []), total])
    if body["found"] > len(rows):
        output.hint(f"{body['found'] - len(rows)} more groups: raise --limit")
    if not body["total"]["calls"]:
        output.hint(f"nothing was used from {body['since']} to {body['until']} by these filters")
