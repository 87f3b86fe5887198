"""That a day is archived is a fact, and it gets no partition again."""

from datetime import date

import pytest

from budgets.domain.usagestore import make_partitions
from budgets.models import UsageArchive
from tests.budgets.constraints.attack import refused_by, sql
from tests.budgets.world import NOW

DAY = date(2031, 5, 6)


def archive(**changes: object) -> UsageArchive:
    values = {"day": DAY, "file": "f", "events": 0, "size_bytes": 1, "digest": b"d"}
    return UsageArchive.objects.create(**values | {"archived_at": NOW} | changes)


@pytest.mark.django_db
def test_never_edited() -> None:
    archive()
    with refused_by("usage_archive_append_only"):
        sql("UPDATE budgets_usagearchive SET file = 'x'")
    with refused_by("usage_archive_append_only"):
        sql("DELETE FROM budgets_usagearchive")


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", [{"events": -1}, {"size_bytes": 0}])
def test_its_counts_make_sense(wrong: dict[str, int]) -> None:
    with refused_by("archive_counts_make_sense"):
        archive(**wrong)


@pytest.mark.django_db
def test_its_day_stays_closed() -> None:
    archive()
    with refused_by("usage_day_archived"):
        make_partitions([DAY])
