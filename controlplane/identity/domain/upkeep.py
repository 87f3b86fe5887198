"""What is done from time to time: the worker's pulse, and the end of what has expired."""

from datetime import datetime, timedelta

from django.contrib.sessions.models import Session

from controlplane.identity.models import IdempotentAnswer, Pulse, SignInAttempt, SignInLink

WORKER = "worker"
LINKS_KEPT_FOR = timedelta(days=7)
ANSWERS_KEPT_FOR = timedelta(hours=24)
ATTEMPTS_KEPT_FOR = timedelta(hours=1)


def beat(*, now: datetime, name: str = WORKER) -> None:
    """A beat has been scheduled, queued and worked: the whole way is alive."""
    Pulse.objects.update_or_create(name=name, defaults={"at": now})


def age_of_pulse(*, now: datetime, name: str = WORKER) -> timedelta | None:
    """How long ago the last beat was worked; None before the first."""
    at = Pulse.objects.filter(name=name).values_list("at", flat=True).first()
    return None if at is None else now - at


def sweep(*, now: datetime) -> int:
    """Delete sessions, links, tries and stored answers that are over. How many."""
    return sum(
        rows.delete()[0]
        for rows in (
            Session.objects.filter(expire_date__lt=now),
            SignInLink.objects.filter(expires_at__lt=now - LINKS_KEPT_FOR),
            SignInAttempt.objects.filter(at__lt=now - ATTEMPTS_KEPT_FOR),
            IdempotentAnswer.objects.filter(created_at__lt=now - ANSWERS_KEPT_FOR),
        )
    )
