"""Bills of providers, and how they compare with what was metered and what engines counted."""

from django.db import models
from django.db.models import F, Q

from enforcement.rules.reconcile import CauseKind, Verdict


class Reconciliation(models.Model):
    """What was metered, beside what the engine counted and the provider billed. Derived.

    Of a node and model in an hour, or of a provider's model in the time of a bill; then `node` is
    the only one that it was called through, if there is one. Amounts that nobody told are null. A
    row without a model is of all models that are not told apart. Of the hour in which a node was
    first read, only what began after it counts.
    """

    organization = models.ForeignKey("identity.Organization", models.CASCADE, related_name="+")
    node = models.CharField(max_length=200, blank=True, default="")  # as calls name it
    provider = models.CharField(max_length=64, blank=True, default="")
    model = models.CharField(max_length=200, blank=True, default="")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    calls = models.BigIntegerField()
    metered_prompt_tokens = models.BigIntegerField()
    metered_cached_tokens = models.BigIntegerField()
    metered_generation_tokens = models.BigIntegerField()
    charge_nanos = models.BigIntegerField()
    produced_prompt_tokens = models.BigIntegerField(null=True)
    produced_cached_tokens = models.BigIntegerField(null=True)
    produced_generation_tokens = models.BigIntegerField(null=True)
    billed_prompt_tokens = models.BigIntegerField(null=True)
    billed_cached_tokens = models.BigIntegerField(null=True)
    billed_generation_tokens = models.BigIntegerField(null=True)
    billed_nanos = models.BigIntegerField(null=True)
    verdict = models.CharField(max_length=8, choices=[(v.value, v.value) for v in Verdict])
    cause_kind = models.CharField(
        max_length=16, blank=True, default="", choices=[(k.value, k.value) for k in CauseKind]
    )
    cause = models.CharField(max_length=600, blank=True, default="")
    computed_at = models.DateTimeField()  # when it last became what it is
    alerted_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-starts_at"], name="reconciled_by_time"),
            models.Index(
                fields=["organization", "-starts_at"],
                condition=Q(verdict=Verdict.DRIFTS.value),
                name="reconciled_drifting",
            ),
            models.Index(
                fields=["-computed_at"],
                condition=Q(verdict=Verdict.DRIFTS.value),
                name="reconciled_drift_found",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "starts_at", "ends_at", "node", "provider", "model"],
                name="reconciled_once",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="reconciled_takes_time"
            ),
            models.CheckConstraint(
                condition=Q(verdict__in=[verdict.value for verdict in Verdict]),
                name="reconciled_verdict_known",
            ),
            models.CheckConstraint(
                condition=Q(verdict=Verdict.ALONE.value)
                | Q(verdict=Verdict.UNKNOWN.value)
                | Q(produced_generation_tokens__isnull=False)
                | Q(billed_generation_tokens__isnull=False)
                | Q(billed_nanos__isnull=False),
                name="reconciled_compares_something",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node} {self.model} {self.starts_at:%Y-%m-%d %H} {self.verdict}"


class BillLine(models.Model):
    """What a provider said of a model in a time: tokens (`usage`) or money (`cost`). Its last word
    counts: a bill of a time replaces what an earlier one said of it.
    """

    organization = models.ForeignKey("identity.Organization", models.CASCADE, related_name="+")
    provider = models.CharField(max_length=64)
    account = models.CharField(max_length=64, blank=True, default="")  # where there are several
    kind = models.CharField(max_length=5, choices=[("usage", "usage"), ("cost", "cost")])
    model = models.CharField(max_length=200, blank=True, default="")
    item = models.CharField(max_length=200, blank=True, default="")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    prompt_tokens = models.BigIntegerField(null=True)
    cached_tokens = models.BigIntegerField(null=True)
    generation_tokens = models.BigIntegerField(null=True)
    calls = models.BigIntegerField(null=True)
    cost_nanos = models.BigIntegerField(null=True)
    source = models.CharField(max_length=200)  # the file, or the address
    read_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["organization", "-starts_at"], name="bill_by_time")]
        constraints = [
            models.UniqueConstraint(
                fields=[
                    *("organization", "provider", "account", "starts_at", "ends_at"),
                    *("kind", "model", "item"),
                ],
                name="bill_line_said_once",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="bill_line_takes_time"
            ),
            models.CheckConstraint(
                condition=Q(
                    kind="usage",
                    cost_nanos__isnull=True,
                    prompt_tokens__isnull=False,
                    cached_tokens__isnull=False,
                    generation_tokens__isnull=False,
                    prompt_tokens__gte=0,
                    cached_tokens__gte=0,
                    generation_tokens__gte=0,
                )
                | Q(
                    kind="cost",
                    cost_nanos__isnull=False,
                    prompt_tokens__isnull=True,
                    cached_tokens__isnull=True,
                    generation_tokens__isnull=True,
                ),
                name="bill_line_is_of_a_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.model} {self.kind} {self.starts_at:%Y-%m-%d %H}"


class BillAccount(models.Model):
    """An account of `COMPTROLLER_BILLS`: when its provider is asked next, and how it went."""

    organization = models.ForeignKey("identity.Organization", models.CASCADE, related_name="+")
    provider = models.CharField(max_length=64)
    account = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()
    attempts = models.IntegerField(default=0)  # since the last that succeeded
    asked_at = models.DateTimeField(null=True)
    succeeded_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "provider", "account"], name="bill_account_known_once"
            ),
            models.CheckConstraint(
                condition=Q(attempts__gte=0), name="bill_account_attempts_counted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.account}" if self.account else self.provider

    @property
    def state(self) -> str:
        """How fresh its bill is, in a word."""
        if self.attempts:
            return "failing"
        return "current" if self.succeeded_at else "waiting"
