from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from budgets.enums import choices_of
from controlplane.identity.ids import new_id
from enforcement.rules.reports.call import Source
from enforcement.rules.wire import Outcome


class UsageEvent(models.Model):
    """One finished or cut model call. Append-only: trigger in migration 0014.

    A partition holds each UTC day of `started_at` (migration 0014), so the database's key is
    `(id, started_at)`; that an id is booked once, `UsageReceipt` holds. The id is the sidecar's.
    Team and project are the agent's at the time of booking. `parts` is what the call paid from each
    lease.
    """

    id = models.UUIDField(primary_key=True, editable=False)
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
    session = models.CharField(max_length=200, default="", blank=True)
    user = models.CharField(max_length=200, default="", blank=True)
    model = models.CharField(max_length=200)
    provider = models.CharField(max_length=64, default="", blank=True)
    node = models.CharField(max_length=200, default="", blank=True)
    skill = models.CharField(max_length=200, default="", blank=True)
    endpoint = models.CharField(max_length=64, default="", blank=True)
    sidecar = models.UUIDField(null=True)
    started_at = models.DateTimeField()
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cache_write_long_tokens = models.BigIntegerField(default=0)
    input_audio_tokens = models.BigIntegerField(default=0)
    input_image_tokens = models.BigIntegerField(default=0)
    output_audio_tokens = models.BigIntegerField(default=0)
    service_tier = models.CharField(max_length=32, default="", blank=True)
    gpu_ms = models.BigIntegerField(default=0)  # engine time × accelerators
    tool_calls = models.BigIntegerField(default=0)
    charge_nanos = models.BigIntegerField(default=0)
    price_version = models.ForeignKey(
        "budgets.PriceVersion",
        models.DO_NOTHING,
        null=True,
        db_constraint=False,
        related_name="+",
    )
    outcome = models.CharField(max_length=16, choices=choices_of(Outcome))
    stream = models.BooleanField(default=False)
    tags = models.JSONField(default=dict, blank=True)
    parts = models.JSONField(default=list, blank=True)
    attempt = models.IntegerField(default=1)
    duration_ms = models.BigIntegerField(default=0)
    ttft_ms = models.BigIntegerField(null=True)
    finish_reason = models.CharField(max_length=64, default="", blank=True)
    stopped_by = models.CharField(max_length=64, default="", blank=True)
    upstream_id = models.CharField(max_length=200, default="", blank=True)
    presumed = models.BooleanField(default=False)
    estimated = models.BooleanField(default=False)
    received_at = models.DateTimeField()
    source = models.CharField(
        max_length=16, choices=choices_of(Source), default="", db_default="", blank=True
    )  # empty: a sidecar metered it

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-started_at"], name="usage_by_time"),
            models.Index(fields=["organization", "agent", "-started_at"], name="usage_by_agent"),
            models.Index(
                fields=["organization", "session"],
                condition=~Q(session=""),
                name="usage_by_session",
            ),
            BrinIndex(fields=["received_at"], name="usage_by_receipt", autosummarize=True),
            models.Index(
                fields=["organization", "-started_at"],
                condition=Q(price_version=None),
                name="usage_without_price",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(input_tokens__gte=0)
                & Q(cached_input_tokens__gte=0)
                & Q(cache_write_tokens__gte=0)
                & Q(output_tokens__gte=0)
                & Q(reasoning_tokens__gte=0)
                & Q(cache_write_long_tokens__gte=0)
                & Q(input_audio_tokens__gte=0)
                & Q(input_image_tokens__gte=0)
                & Q(output_audio_tokens__gte=0)
                & Q(charge_nanos__gte=0)
                & Q(gpu_ms__gte=0)
                & Q(tool_calls__gte=0),
                name="usage_amounts_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(outcome__in=[outcome.value for outcome in Outcome]),
                name="usage_outcome_known",
            ),
            models.CheckConstraint(
                condition=Q(source__in=["", *(source.value for source in Source)]),
                name="usage_source_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.outcome} {self.charge_nanos}"

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class UsageReceipt(models.Model):
    """That an event was booked: what makes its id unique over all partitions.

    The first report wins. `digest` is SHA-256 of the event as it was read; None for what was booked
    before there were receipts. `budgets.domain.receipts` says when one may go.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    organization_id = models.UUIDField()
    started_at = models.DateTimeField()  # as booked: names the partition
    digest = models.BinaryField(null=True)

    def __str__(self) -> str:
        return str(self.id)


class Refusal(models.Model):
    """Refused calls of one kind since a sidecar's last flush."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    agent = models.ForeignKey(
        "identity.Agent", models.DO_NOTHING, null=True, db_constraint=False, related_name="+"
    )
    model = models.CharField(max_length=200, default="", blank=True)
    budget = models.ForeignKey(
        "budgets.Budget", models.DO_NOTHING, null=True, db_constraint=False, related_name="+"
    )
    code = models.CharField(max_length=64)
    count = models.BigIntegerField()
    message = models.CharField(max_length=500, default="", blank=True)
    at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-at"], name="refusal_by_time"),
            models.Index(fields=["organization", "agent", "-at"], name="refusal_by_agent"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(count__gt=0), name="refusal_count_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.code} × {self.count}"
