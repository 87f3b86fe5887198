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
