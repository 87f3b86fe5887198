"""Sidecars and their spools, serving nodes and what they report."""

from django.db import models
from django.db.models import F, Q, Value

from controlplane.identity.ids import new_id
from enforcement.enums import NodeState
from enforcement.rules.nodecost import MOST_ACCELERATORS, MOST_PER_HOUR_NANOS, MOST_WATTS
from enforcement.rules.readings import Outcome

MOST_PATIENCE_S = 30 * 24 * 3600


class Sidecar(models.Model):
    """An enforcement process of an organization, known by its token."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    name = models.CharField(max_length=100)
    token = models.OneToOneField("identity.ApiToken", models.PROTECT, related_name="sidecar")
    version = models.CharField(max_length=40, blank=True, default="")
    created_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(null=True, blank=True)
    refused_nodes = models.JSONField(default=list)  # of its last hello: {"name", "why"}

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="sidecar_name_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class Spool(models.Model):
    """A journal directory with an identity: one book's memory, fenced by its epoch (L7)."""

    id = models.UUIDField(primary_key=True, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    sidecar = models.ForeignKey(Sidecar, models.PROTECT, related_name="spools")
    book = models.CharField(max_length=100, blank=True, default="")
    boot = models.CharField(max_length=64)
    epoch = models.IntegerField(default=1)
    incarnation = models.UUIDField()  # of the ledger, which knows all its leases
    waived_for = models.UUIDField(null=True, blank=True)  # an incarnation that does not wait for it
    kernel_boot_id = models.CharField(max_length=64, blank=True, default="")
    clean_shutdown = models.BooleanField(default=False)
    policy_revision = models.BigIntegerField(default=0)
    policy_valid_until = models.DateTimeField()
    last_sync_at = models.DateTimeField()
    health = models.JSONField(default=dict)
    sessions = models.JSONField(default=list)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-last_sync_at"], name="spool_of_organization"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(epoch__gt=0), name="spool_epoch_positive"),
        ]

    def __str__(self) -> str:
        return self.book or str(self.id)


class ServingNode(models.Model):
    """A process that serves models, as a sidecar found it or a person entered it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    name = models.CharField(max_length=100)
    sidecar = models.ForeignKey(
        Sidecar, models.SET_NULL, null=True, blank=True, related_name="nodes"
    )
    base_url = models.CharField(max_length=500)
    engine = models.CharField(max_length=40, default="unknown")
    engine_version = models.CharField(max_length=100, blank=True, default="")
    provider = models.CharField(max_length=100, blank=True, default="")
    context_window = models.IntegerField(null=True, blank=True)
    metrics_path = models.CharField(max_length=200, blank=True, default="")
    labels = models.JSONField(default=dict)
    by_hand = models.BooleanField(default=False)  # a person entered it, and said where it is read
    removed_at = models.DateTimeField(null=True, blank=True)  # by people: no hello brings it back
    patience_s = models.IntegerField(default=0)  # for so long its silence is no failure
    state = models.CharField(max_length=8, choices=NodeState.choices, default=NodeState.ACTIVE)
    created_at = models.DateTimeField()
    last_scraped_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True, default="")
    warning = models.CharField(max_length=500, blank=True, default="")  # of a page that was read
    process = models.CharField(max_length=200, blank=True, default="")  # who answered, which life
    models = models.JSONField(default=list)  # last: the name hides Django's module from here on

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="node_name_unique"),
            models.CheckConstraint(
                condition=Q(state__in=NodeState.values), name="node_state_known"
            ),
            models.CheckConstraint(
                condition=Q(removed_at__isnull=True) | Q(state=NodeState.GONE),
                name="node_removed_is_gone",
            ),
            models.CheckConstraint(
                condition=Q(patience_s__range=(0, MOST_PATIENCE_S)), name="node_patience_plausible"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class NodeCost(models.Model):
    """What a node costs from a time on, and what stands there. Never edited: a later row with the
    same date corrects an earlier one. `enforcement.rules.nodecost` tells what is in force.
    """

    node = models.ForeignKey(ServingNode, models.PROTECT, related_name="costs")
    valid_from = models.DateTimeField()
    cost_per_hour_nanos = models.BigIntegerField()
    accelerator = models.CharField(max_length=100, blank=True, default="")
    accelerator_count = models.IntegerField(default=0)
    watts = models.IntegerField(null=True, blank=True)  # of the whole node, under load
    reason = models.CharField(max_length=500, blank=True, default="")
    recorded_by = models.CharField(max_length=200)
    recorded_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["node", "valid_from", "id"], name="cost_of_node")]
        constraints = [
            models.CheckConstraint(
                condition=Q(cost_per_hour_nanos__range=(0, MOST_PER_HOUR_NANOS)),
                name="node_cost_plausible",
            ),
            models.CheckConstraint(
                condition=Q(accelerator="", accelerator_count=0)
                | Q(accelerator__gt="", accelerator_count__range=(1, MOST_ACCELERATORS)),
                name="node_cost_counts_what_it_names",
            ),
            models.CheckConstraint(
                condition=Q(watts__isnull=True) | Q(watts__range=(1, MOST_WATTS)),
                name="node_cost_watts_plausible",
            ),
            models.CheckConstraint(condition=~Q(recorded_by=""), name="node_cost_says_who"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} from {self.valid_from:%Y-%m-%d %H:%M:%S}"


class NodeSample(models.Model):
    """One scrape. `epoch` rises when a node's counters began anew."""

    node = models.ForeignKey(ServingNode, models.CASCADE, related_name="samples")
    at = models.DateTimeField()
    epoch = models.IntegerField(default=1)
    prompt_tokens_total = models.BigIntegerField()
    cached_tokens_total = models.BigIntegerField(default=0)
    generation_tokens_total = models.BigIntegerField()
    requests_running = models.IntegerField(default=0)
    requests_waiting = models.IntegerField(default=0)
    extra = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["node", "at"], name="sample_one_for_each_instant"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.at:%Y-%m-%d %H:%M:%S}"


class ReadingCount(models.Model):
    """How many visits of nodes ended so, in the whole installation, and how late those were that
    nodes were read at. It only grows: for metrics.
    """

    outcome = models.CharField(
        primary_key=True, max_length=20, choices=[(o.value, o.value) for o in Outcome]
    )
    readings = models.BigIntegerField(default=0)
    late_ms = models.BigIntegerField(default=0)  # since they were due, all together

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome__in=[outcome.value for outcome in Outcome]),
                name="reading_count_outcome_known",
            ),
            models.CheckConstraint(
                condition=Q(readings__gte=0, late_ms__gte=0), name="reading_count_counts_up"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.outcome}: {self.readings}"


class DeviceSample(models.Model):
    """A device of a node at one moment; null is what it did not tell."""

    node = models.ForeignKey(ServingNode, models.CASCADE, related_name="device_samples")
    at = models.DateTimeField()
    device = models.CharField(max_length=100)
    model = models.CharField(max_length=100, blank=True, default="")
    busy_permille = models.BigIntegerField(null=True)
    power_milliwatts = models.BigIntegerField(null=True)
    energy_millijoules = models.BigIntegerField(null=True)  # since the device's driver started
    memory_bytes = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["node", "device", "at"], name="device_sample_one_for_each_instant"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.device} {self.at:%Y-%m-%d %H:%M:%S}"


class NodeUsage(models.Model):
    """What a node produced in an hour, by its own counters."""

    node = models.ForeignKey(ServingNode, models.CASCADE, related_name="usage")
    hour = models.DateTimeField()
    prompt_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    generation_tokens = models.BigIntegerField(default=0)
    incomplete = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["node", "hour"], name="node_usage_one_for_each_hour"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.hour:%Y-%m-%d %H}"


class NodeActivity(models.Model):
    """How long a node worked and waited in an hour, by what its readings showed. Derived.

    What is neither busy nor idle was not read. `running_ms` sums over requests at once; so do
    `prefill_ms` and `decode_ms`, which engines count themselves. Energy is of the devices that this
    node's own readings tell of; `energy_is_counted`: by a counter, not out of the power drawn.
    """

    node = models.ForeignKey(ServingNode, models.CASCADE, related_name="activity")
    hour = models.DateTimeField()
    busy_ms = models.BigIntegerField(default=0)
    idle_ms = models.BigIntegerField(default=0)
    running_ms = models.BigIntegerField(default=0)
    prefill_ms = models.BigIntegerField(default=0)
    decode_ms = models.BigIntegerField(default=0)
    energy_millijoules = models.BigIntegerField(null=True)
    energy_is_counted = models.BooleanField(default=False)

    class Meta:
        verbose_name_plural = "node activity"
        constraints = [
            models.UniqueConstraint(fields=["node", "hour"], name="activity_one_for_each_hour"),
            models.CheckConstraint(
                condition=Q(
                    busy_ms__gte=0,
                    idle_ms__gte=0,
                    idle_ms__lte=Value(3_600_000) - F("busy_ms"),
                    running_ms__gte=F("busy_ms"),
                    prefill_ms__gte=0,
                    decode_ms__gte=0,
                ),
                name="activity_fits_its_hour",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.hour:%Y-%m-%d %H}"
