"""System checks of this app. W001 usage events cannot be archived."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register  # noqa: A004 -- Django's

from budgets.domain.archive import check_place
from budgets.errors import ArchiveError


@register(Tags.files, deploy=True)
def archive_folder(**_: Any) -> list[CheckMessage]:
    """As far as this process can tell: workers are who writes."""
    if not settings.USAGE_KEEP_DAYS:
        return []
    try:
        check_place(keep_days=settings.USAGE_KEEP_DAYS, folder=settings.ARCHIVE_DIR)
    except ArchiveError as error:
        hint = "Days of usage events stay in the database until every worker can write there."
        return [Warning(f"{error}.", hint=hint, id="budgets.W001")]
    return []
