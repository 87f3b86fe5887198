"""The Celery app and its schedule. Tasks are thin, idempotent, and leave no results.

Beat sends one message: the scan of what is due. When each duty is due stands in the database, so
several beats, doubled or lost messages, and killed workers change nothing (`controlplane.duties`).
"""

import os
import sys
from datetime import timedelta

from celery import Celery
from celery.signals import worker_init, worker_ready
from kombu.entity import Exchange, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

from django.conf import settings

BEAT_SCHEDULE = {
    "scan-nodes": {"task": "enforcement.scan_nodes", "schedule": 5.0},
    "measure-activity": {"task": "enforcement.measure_activity", "schedule": 300.0},
    "discover-nodes": {"task": "enforcement.discover_nodes", "schedule": 60.0},
    "reconcile-usage": {"task": "enforcement.reconcile_usage", "schedule": 300.0},
    "fetch-bills": {"task": "enforcement.fetch_bills", "schedule": 60.0},
    "forget-samples": {"task": "enforcement.forget_samples", "schedule": 3600.0},
    "fold-usage": {"task": "budgets.fold_usage", "schedule": 10.0},
    "prepare-partitions": {"task": "budgets.prepare_partitions", "schedule": 3600.0},
    "archive-usage": {"task": "budgets.archive_usage", "schedule": 3600.0},
    "forget-receipts": {"task": "budgets.forget_receipts", "schedule": 3600.0},
    "announce-prices": {"task": "budgets.announce_prices", "schedule": 30.0},
    "write-off": {"task": "budgets.write_off", "schedule": 3600.0},
    "apply-changes": {"task": "budgets.apply_changes", "schedule": 2.0},
    "settle-delegations": {"task": "budgets.settle_delegations", "schedule": 2.0},
    "turn-windows": {"task": "budgets.turn_windows", "schedule": 5.0},
    "watch-thresholds": {"task": "enforcement.watch_thresholds", "schedule": 1.0},
    "review-thresholds": {"task": "enforcement.review_thresholds", "schedule": 10.0},
    "free-permits": {"task": "budgets.free_permits", "schedule": 30.0},
    "seal-journal": {"task": "budgets.seal_journal", "schedule": 10.0},
    "verify-ledger": {"task": "budgets.verify_ledger", "schedule": 3600.0},
    "beat": {"task": "identity.beat", "schedule": 10.0},
    "forget-letters": {"task": "duties.forget_letters", "schedule": 3600.0},
    "sweep": {"task": "identity.sweep", "schedule": 3600.0},
    "verify-signatures": {"task": "skills.verify_signatures", "schedule": 3600.0},
}

DUTIES = {
    str(entry["task"]): timedelta(seconds=float(str(entry["schedule"])))
    for entry in BEAT_SCHEDULE.values()
}

# What budgets wait for never stands behind a serving node that hangs, or an hour's audit.
CRITICAL_QUEUE, DEFAULT_QUEUE, SCRAPE_QUEUE = "critical", "comptroller", "scrape"
QUEUE_OF = {
    "duties.scan": CRITICAL_QUEUE,
    "identity.beat": CRITICAL_QUEUE,
    "budgets.apply_changes": CRITICAL_QUEUE,
    "budgets.settle_delegations": CRITICAL_QUEUE,
    "budgets.turn_windows": CRITICAL_QUEUE,
    "budgets.free_permits": CRITICAL_QUEUE,
    "budgets.announce_prices": CRITICAL_QUEUE,
    "enforcement.watch_thresholds": CRITICAL_QUEUE,
    "enforcement.review_thresholds": CRITICAL_QUEUE,
    "enforcement.scan_nodes": SCRAPE_QUEUE,
    "enforcement.scrape_nodes": SCRAPE_QUEUE,
}
EXCHANGE = Exchange(DEFAULT_QUEUE)  # type: ignore[no-untyped-call]
QUEUES = [
    Queue(name, EXCHANGE, routing_key=name)  # type: ignore[no-untyped-call]
    for name in (CRITICAL_QUEUE, DEFAULT_QUEUE, SCRAPE_QUEUE)
]
LONGEST_TASK_S = 300
# Redis and Valkey give an unacknowledged message to another worker after this: never while its
# task may still run. RabbitMQ does so when the connection ends.
VISIBILITY_TIMEOUT_S = 3 * LONGEST_TASK_S
SCAN_KEPT_S = 60.0  # not less: the clocks of beat and worker differ
SILENCE_S = 10  # of a broker: then the connection is dead, whoever holds its other end


def queue_of(task: str) -> str:
    """The queue in which messages of this task wait."""
    return QUEUE_OF.get(task, DEFAULT_QUEUE)


def transport_options(broker_url: str) -> dict[str, int]:
    """What only brokers that speak Redis are told."""
    is_redis = broker_url.startswith(("redis", "valkey", "sentinel"))
    if not is_redis:
        return {}
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_timeout": SILENCE_S,
        "socket_connect_timeout": SILENCE_S,
    }


app = Celery("comptroller")
app.conf.update(
    broker_url=settings.BROKER_URL,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # for ever
    broker_transport_options=transport_options(settings.BROKER_URL),
    task_ignore_result=True,
    task_acks_late=True,
    task_serializer="json",
    accept_content=["json"],
    task_time_limit=60,
    task_soft_time_limit=45,
    task_default_queue=DEFAULT_QUEUE,
    task_queues=QUEUES,
    task_routes={task: {"queue": queue} for task, queue in QUEUE_OF.items()},
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    beat_schedule={
        "scan": {"task": "duties.scan", "schedule": 1.0, "options": {"expires": SCAN_KEPT_S}},
    },
    timezone="UTC",
)
app.autodiscover_tasks(
    ["controlplane.identity", "controlplane.duties", "budgets", "enforcement", "skills"]
)


@worker_init.connect  # type: ignore[untyped-decorator]
def keep_failures(**_: object) -> None:
    """Tasks that fail for good become dead letters: the models are ready by now."""
    import controlplane.duties.failures  # noqa: F401, PLC0415 -- connects itself


@worker_ready.connect  # type: ignore[untyped-decorator]
def announce(**_: object) -> None:
    """One line that a launcher can wait for, whatever the log level."""
    print("worker ready", file=sys.__stdout__, flush=True)
