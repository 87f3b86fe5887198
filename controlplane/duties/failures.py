"""What Celery tells of tasks that failed becomes dead letters. Duties book their own failures."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from celery.signals import task_failure, task_success, task_unknown
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane.duties.domain.letters import bury, recover_batches
from controlplane.duties.domain.parcels import BATCHES, UNTOLD, Parcel, parcel_of, words_of

BOOKED_BY_THEMSELVES = frozenset({"duties.scan", "duties.perform"})
SENT_IN_BATCHES = frozenset({"enforcement.scrape_nodes"})
UNKNOWN = "nobody knows this task: a message of another version, or of somebody else"
log = structlog.get_logger("duties")
_told: deque[str] = deque(maxlen=100)  # ids of messages: Celery tells a hard limit twice


def keep_failed(
    sender: Any = None,
    task_id: str = "",
    exception: BaseException | None = None,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    **_: object,
) -> None:
    """A task raised, or its process died."""
    if sender is None or exception is None or sender.name in BOOKED_BY_THEMSELVES:
        return
    if task_id in _told:
        return
    _told.append(task_id)
    is_batch = sender.name in SENT_IN_BATCHES
    parcel = BATCHES if is_batch else parcel_of(args or (), kwargs or {})
    _keep(sender.name, parcel, words_of(exception))


def note_succeeded(sender: Any = None, **_: object) -> None:
    """A task has ended well."""
    if sender is not None and sender.name in SENT_IN_BATCHES:
        recover_batches(sender.name, now=timezone.now())


def keep_unknown(name: str | None = None, **_: object) -> None:
    """A message that no task belongs to; Celery drops it."""
    _keep(str(name), UNTOLD, UNKNOWN)


def _keep(task: str, parcel: Parcel, error: str) -> None:
    try:
        if not connection.in_atomic_block:
            close_old_connections()  # one that broke, perhaps with the task
        kept = bury(task, parcel, error=error, attempts=1, now=timezone.now())
    except Exception:  # a handler that raises would hide the failure itself
        log.exception("a dead letter could not be kept", task=task[:64])
    else:
        if not kept:
            log.error("no room for another dead letter", task=task[:64], error=error)


task_failure.connect(keep_failed)
task_success.connect(note_succeeded)
task_unknown.connect(keep_unknown)
