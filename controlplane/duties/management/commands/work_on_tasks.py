"""`manage.py work_on_tasks`, behind `comptroller tasks`."""

import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Exit, Output
from controlplane.identity.commands import add_format, organization_of, output_of

MOST_ROWS = 200
DUTY_COLUMNS = ("task", "due_at", "started_at", "last_ms", "runs", "failures", "attempts")
LETTER_COLUMNS = ("id", "task", "error", "attempts", "last_at", "state", "arguments")


class Command(BaseCommand):
    help = "Background work: what is due, what failed for good, and settling that."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=["list", "dead", "retry", "dismiss"])
        parser.add_argument("letter", nargs="?", default="", help="the id of a dead letter")
        parser.add_argument("--reason", default="", help="why; needed to retry and to dismiss")
        parser.add_argument("--organization", default="", help="whose trail; its slug")
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        output = output_of(options)
        match options["verb"]:
            case "list":
                _list(output)
            case "dead":
                _dead(output)
            case verb:
                _settle(verb, options, output)


def _list(output: Output) -> None:
    from controlplane.duties.models import Duty

    rows = [
        [
            *(row.name, row.due_at.isoformat(), row.started_at and row.started_at.isoformat()),
            *(row.last_ms, row.runs, row.failures, row.attempts),
        ]
        for row in Duty.objects.order_by("name")
    ]
    output.table(DUTY_COLUMNS, rows)
    if not rows:
        output.text("No duty yet: beat and a worker have not run.")


def _dead(output: Output) -> None:
    from controlplane.duties.enums import LetterState
    from controlplane.duties.models import DeadLetter

    letters = DeadLetter.objects.filter(state=LetterState.DEAD).order_by("-last_at")
    rows = [
        [
            *(str(row.pk), row.task, row.error, row.attempts, row.last_at.isoformat()),
            *(row.state, json.dumps(row.arguments)),
        ]
        for row in letters[:MOST_ROWS]
    ]
    output.table(LETTER_COLUMNS, rows)
    if not rows:
        output.text("Nothing has failed for good.")


def _settle(verb: str, options: dict[str, Any], output: Output) -> None:
    from controlplane.audit.domain import Actor
    from controlplane.duties.domain.letters import dismiss_letter, retry_letter
    from controlplane.duties.errors import (
        BrokerAwayError,
        DutiesError,
        LetterNotFoundError,
        ReasonMissingError,
    )
    from controlplane.duties.sending import send

    organization = organization_of(options)
    who = {
        "organization_id": organization.id,
        "actor": Actor.system("command line"),
        "reason": options["reason"],
        "now": timezone.now(),
    }
    try:
        letter_id = UUID(options["letter"])
    except ValueError as error:
        told = f"{options['letter']!r} is no id of a dead letter"
        raise CommandError(told, returncode=Exit.USAGE) from error
    try:
        letter = (
            dismiss_letter(letter_id, **who)
            if verb == "dismiss"
            else retry_letter(letter_id, send=send, **who)
        )
    except LetterNotFoundError as error:
        raise CommandError(str(error), returncode=Exit.NOT_FOUND) from error
    except BrokerAwayError as error:
        raise CommandError(str(error), returncode=Exit.UNAVAILABLE) from error
    except ReasonMissingError as error:
        raise CommandError(f"{error}, with --reason", returncode=Exit.USAGE) from error
    except DutiesError as error:
        raise CommandError(str(error), returncode=Exit.CONFLICT) from error
    output.result({"id": str(letter.pk), "task": letter.task, "state": str(letter.state)})
