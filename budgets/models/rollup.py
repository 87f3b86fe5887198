from django.contrib.postgres.fields import ArrayField
from django.db import models


class UsageRollup(models.Model):
    """Use of one hour, folded from usage events. Derived: may be dropped and folded again."""

    id = models.BigAutoField(primary_key=True)
    hour = models.DateTimeField()
    organization = models.ForeignKey(
        "identity.Organization", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    team = models.ForeignKey(
        "identity.Team", models.DO_NOTHING, null=True, db_constraint=False, related_name="+"
    )
    project = models.ForeignKey(
        "identity.Project", models.DO_NOTHING, null=True, db_constraint=False, related_name="+"
    )
    agent = models.ForeignKey(
        "identity.Agent", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    model = models.CharField(max_length=200)
    provider = models.CharField(max_length=64, default="", blank=True)
    node = models.CharField(max_length=200, default="", blank=True)
    calls = models.BigIntegerField(default=0)
    cut_calls = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    charge_nanos = models.BigIntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["organization", "hour"], name="rollup_by_hour")]
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "hour",
                    "organization",
                    "team",
                    "project",
                    "agent",
                    "model",
                    "provider",
                    "node",
                ],
                nulls_distinct=False,
                name="rollup_one_for_each_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%dT%H} {self.model}"


class RollupWatermark(models.Model):
    """Up to which receipt the fold `name` has read the usage events."""

    name = models.CharField(primary_key=True, max_length=64)
    received_at = models.DateTimeField()
    folded_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} {self.received_at:%Y-%m-%dT%H:%M:%S}"


class UnfoldedUse(models.Model):
    """Events and ratings that no rollup counts yet. Written with them, deleted by their fold."""

    id = models.BigAutoField(primary_key=True)
    received_at = models.DateTimeField()
    events = ArrayField(models.UUIDField(), default=list)
    starts = ArrayField(models.DateTimeField(), default=list)  # of the events: their partitions
    ratings = ArrayField(models.UUIDField(), default=list)

    def __str__(self) -> str:
        return f"{len(self.events)} events, {len(self.ratings)} ratings"


class UsageValue(models.Model):
    """A value of a dimension as cells name it: by a small number."""

    id = models.AutoField(primary_key=True)
    organization_id = models.UUIDField()
    dimension = models.SmallIntegerField()
    value = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization_id", "dimension", "value"], name="usage_value_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dimension}: {self.value}"


class UsageCell(models.Model):
    """Use of one hour, day or week (UTC) by none, one or two dimensions. Derived from the events.

    `dimensions` and the two values are numbers of `budgets.domain.dimensions`. Partitioned by
    `dimensions` (migration 0018), so that the cells of one question lie together.
    """

    pk = models.CompositePrimaryKey(
        "organization_id", "dimensions", "hours", "start", "first", "second"
    )
    organization_id = models.UUIDField()
    dimensions = models.SmallIntegerField()
    hours = models.SmallIntegerField()  # how long it is: 1, 24 or 168
    start = models.DateTimeField()
    first = models.IntegerField()
    second = models.IntegerField()
    calls = models.BigIntegerField()
    cut_calls = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    cached_input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    charge_nanos = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.dimensions} {self.start:%Y-%m-%dT%H} {self.first} {self.second}"
