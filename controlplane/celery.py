"""The Celery app and its schedule. Tasks are thin, idempotent, and leave no results."""

import os
import sys

from celery import Celery
from celery.signals import worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

from django.conf import settings

BEAT_SCHEDULE = {
    "scan-nodes": {"task": "enforcement.scan_nodes", "schedule": 5.0},
    "forget-samples": {"task": "enforcement.forget_samples", "schedule": 3600.0},
    "fold-usage": {"task": "budgets.fold_usage", "schedule": 10.0},
    "prepare-partitions": {"task": "budgets.prepare_partitions", "schedule": 3600.0},
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
    "sweep": {"task": "identity.sweep", "schedule": 3600.0},
    "verify-signatures": {"task": "skills.verify_signatures", "schedule": 3600.0},
}

app = Celery("comptroller")
app.conf.update(
    broker_url=settings.BROKER_URL,
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_serializer="json",
    accept_content=["json"],
    task_time_limit=60,
    task_soft_time_limit=45,
    task_default_queue="comptroller",
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    beat_schedule={
        name: entry | {"options": {"expires": entry["schedule"]}}
        for name, entry in BEAT_SCHEDULE.items()
    },
    timezone="UTC",
)
app.autodiscover_tasks(["controlplane.identity", "budgets", "enforcement", "skills"])


@worker_ready.connect  # type: ignore[untyped-decorator]
def announce(**_: object) -> None:
    """One line that a launcher can wait for, whatever the log level."""
    print("worker ready", file=sys.__stdout__, flush=True)
