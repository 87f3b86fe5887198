"""What the lease protocol counts for Prometheus: of this process, never of an organization."""

from prometheus_client import Counter, Gauge, Histogram

MESSAGES = Counter(
    "comptroller_sidecar_messages_total", "Messages of sidecars.", ["message", "status"]
)
GRANTS = Counter("comptroller_leases_granted_total", "Leases that were granted.")
DENIALS = Counter("comptroller_groups_denied_total", "Groups that got nothing.", ["cause"])
EXPIRED = Counter("comptroller_leases_expired_total", "Leases that went to suspense.")
RECALLS = Counter("comptroller_recalls_total", "Books that were asked to send a balance home.")
BATCH_SECONDS = Histogram(
    "comptroller_ledger_batch_seconds",
    "From the begin of a transaction of the ledger to its commit.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
BATCH_MESSAGES = Histogram(
    "comptroller_ledger_batch_messages",
    "Messages that share a transaction.",
    buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256),
)
SPLIT_OVERFLOWS = Counter(
    "comptroller_budget_split_overflows_total",
    "Split values that found no room in their budget.",
    ["budget"],
)
USAGE_EVENTS = Counter(
    "comptroller_usage_events_total",
    "Usage events of sidecars: booked, duplicate, contradicting (a booked id that says something"
    " else), untrue. The last two were set aside.",
    ["result"],
)
WAITING = Gauge("comptroller_groups_waiting", "Groups that wait for their grant.")
WATCHERS = Gauge("comptroller_watch_streams", "Open watch streams.")
