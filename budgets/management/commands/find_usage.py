"""`manage.py find_usage`, behind `comptroller usage find`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

if TYPE_CHECKING:
    from budgets.domain.archive import Found


class Command(BaseCommand):
    help = "Where a usage event stands, and what it says."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("event", help="its id")
        add_organization(parser)
        parser.add_argument("--archive-dir", default="", help="where the files are")
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from budgets.domain.archive import find_event
        from budgets.errors import ArchiveError

        organization = organization_of(options)
        try:
            event_id = UUID(options["event"])
        except ValueError:
            raise CommandError("an id is a UUID") from None
        found = find_event(event_id, organization_id=organization.id)
        if found is None:
            raise CommandError(f"no usage event {event_id} was booked")
        try:
            said = _said(found, folder=options["archive_dir"] or settings.ARCHIVE_DIR)
        except ArchiveError as error:
            raise CommandError(f"it stands in an archive: {error}") from error
        place = found.archive.file if found.archive else "database"
        told = {"stands_in": place, "id": event_id, "started_at": found.started_at, **said}
        output_of(options).result({name: str(told[name]) for name in told})


def _said(found: "Found", *, folder: str) -> dict[str, Any]:
    """All that the event said; nothing of an archived one without a place for its file."""
    from budgets.domain.archive import read_event
    from budgets.models import UsageEvent

    if found.archive is None:
        rows = UsageEvent.objects.filter(id=found.event_id, started_at=found.started_at)
        return dict(rows.values().get())
    return (read_event(found, folder=Path(folder)) if folder else None) or {}
