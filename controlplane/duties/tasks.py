"""The two tasks that carry all others: a scan wakes a worker for each duty that is due."""

from datetime import timedelta

import structlog
from celery import current_app, shared_task
from django.utils import timezone

SCAN_LIMIT_S = 10
log = structlog.get_logger("duties")


@shared_task(
    name="duties.scan",
    ignore_result=True,
    soft_time_limit=SCAN_LIMIT_S / 2,
    time_limit=SCAN_LIMIT_S,
)  # type: ignore[untyped-decorator]
def scan() -> None:
    """Wake a worker for each duty that is due. Beat: every second; any number of beats."""
    from controlplane.celery import DUTIES
    from controlplane.duties.domain.turns import claim_due, database_now, unsend

    for name in claim_due(DUTIES, now=database_now()):
        try:
            _wake(name, DUTIES[name])
        except Exception:
            unsend(name)
            raise


def _wake(name: str, every: timedelta) -> None:
    """Send the task's own limits along, as the worker only knows those of `perform`."""
    from controlplane.celery import queue_of
    from controlplane.duties.domain.rules import keep_message

    task = current_app.tasks[name]
    perform.apply_async(
        kwargs={"duty": name},
        queue=queue_of(name),
        expires=keep_message(every).total_seconds(),
        soft_time_limit=task.soft_time_limit,
        time_limit=task.time_limit,
    )


@shared_task(name="duties.perform", ignore_result=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
def perform(*, duty: str) -> None:
    """Do one turn of this duty, if it is due and nobody is at it.

    If its process dies the message goes to the next one: attempts are counted in the database. Any
    other task that takes its process along becomes a dead letter, as nobody counts those.
    """
    from controlplane.celery import DUTIES
    from controlplane.duties.domain.turns import database_now, take_turn

    every = DUTIES.get(duty)
    if every is None:
        log.warning("nobody has this duty any more", duty=duty[:64])
        return
    task = current_app.tasks[duty]
    is_long = (task.time_limit or 0) > current_app.conf.task_time_limit
    take_turn(duty, task.run, every=every, now=database_now(), is_long=is_long)


@shared_task(name="duties.forget_letters", ignore_result=True, soft_time_limit=20, time_limit=30)  # type: ignore[untyped-decorator]
def forget_letters() -> None:
    """Delete dead letters that were settled long ago. Beat: hourly."""
    from controlplane.duties.domain.letters import forget_letters as forget

    forget(now=timezone.now())
