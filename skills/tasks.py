"""Thin: loads nothing, calls one domain function, and may run twice."""

from celery import shared_task


@shared_task(name="skills.verify_signatures", ignore_result=True, soft_time_limit=45, time_limit=60)  # type: ignore[untyped-decorator]
def verify_signatures() -> None:
    """Judge signatures again whose verdict is a day old: certificates end. Beat: hourly."""
    from django.utils import timezone

    from skills.domain.verification import verify_due

    verify_due(now=timezone.now(), batch_size=500)
