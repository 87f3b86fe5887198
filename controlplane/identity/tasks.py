"""Thin, idempotent, and leaves: the domain functions are imported inside."""

from celery import shared_task
from django.utils import timezone


@shared_task(name="identity.beat", ignore_result=True, soft_time_limit=5)  # type: ignore[untyped-decorator]
def beat() -> None:
    from controlplane.identity.domain import upkeep

    upkeep.beat(now=timezone.now())


@shared_task(name="identity.sweep", ignore_result=True, soft_time_limit=30)  # type: ignore[untyped-decorator]
def sweep() -> None:
    from controlplane.identity.domain import upkeep

    upkeep.sweep(now=timezone.now())
