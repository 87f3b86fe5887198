from django.db import models
from django.db.models import Q


class UsageArchive(models.Model):
    """A UTC day whose usage events stand in a Parquet file, and no longer in the table.

    Append-only: trigger in migration 0020. No partition is made again for such a day.
    """

    day = models.DateField(primary_key=True)
    file = models.CharField(max_length=100)  # its name in the directory of archives
    events = models.BigIntegerField()
    size_bytes = models.BigIntegerField()
    digest = models.BinaryField()  # SHA-256 of the file
    archived_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(events__gte=0) & Q(size_bytes__gt=0), name="archive_counts_make_sense"
            ),
        ]

    def __str__(self) -> str:
        return self.file
