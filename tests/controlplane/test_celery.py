"""The worker: its schedule, and tasks that may run twice."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from controlplane.celery import (
    BEAT_SCHEDULE,
    LONGEST_TASK_S,
    QUEUE_OF,
    VISIBILITY_TIMEOUT_S,
    app,
    transport_options,
)
from controlplane.identity import domain, tasks
from controlplane.identity.domain import upkeep
from controlplane.identity.models import IdempotentAnswer, Pulse, SignInAttempt, SignInLink
from tests.controlplane.world import NOW, World


def test_everything_scheduled_exists() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} <= set(app.tasks)


def test_messages_are_json_kept_until_done_and_leave_no_results() -> None:
    assert list(app.conf.accept_content) == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_acks_late is True
    assert app.conf.task_ignore_result is True
    assert app.conf.result_backend is None


def test_beat_sends_one_message_which_outlives_the_difference_of_two_clocks() -> None:
    (entry,) = app.conf.beat_schedule.values()
    assert (entry["task"], entry["schedule"]) == ("duties.scan", 1.0)
    assert entry["options"] == {"expires": 60.0}


def test_every_message_goes_to_one_queue() -> None:
    keys = [(queue.exchange.name, queue.routing_key) for queue in app.conf.task_queues]
    assert len(set(keys)) == len(keys) == 3
    assert set(QUEUE_OF.values()) <= {queue.name for queue in app.conf.task_queues}
    app.loader.import_default_modules()
    assert set(QUEUE_OF) <= set(app.tasks)


def test_no_message_is_given_to_another_worker_while_its_task_may_run() -> None:
    app.loader.import_default_modules()
    limits = [task.time_limit or app.conf.task_time_limit for task in app.tasks.values()]
    assert max(limits) <= LONGEST_TASK_S < VISIBILITY_TIMEOUT_S
    assert transport_options("redis://x")["visibility_timeout"] == VISIBILITY_TIMEOUT_S
    assert transport_options("amqp://x") == {}


@pytest.mark.django_db
def test_a_beat_leaves_one_pulse() -> None:
    tasks.beat()
    first = Pulse.objects.get().at
    tasks.beat()
    assert Pulse.objects.get().at > first
    assert upkeep.age_of_pulse(now=Pulse.objects.get().at) == timedelta(0)


def test_sweeping_takes_what_is_over_and_nothing_else(world: World) -> None:
    now = timezone.now()
    day, week = timedelta(days=1), timedelta(days=7)
    person = world.people["viewer"]
    for ago in (timedelta(0), day + week):
        domain.make_sign_in_link(person_id=person.pk, now=now - ago)
        SignInAttempt.objects.create(email_hash="x", at=now - ago)
        Session.objects.create(session_key=str(ago), expire_date=now + day - ago)
        IdempotentAnswer.objects.create(
            organization=world.organization, caller="c", key=str(ago), created_at=now - ago
        )
    tasks.sweep()
    tasks.sweep()
    kinds = (SignInLink, SignInAttempt, Session, IdempotentAnswer)
    assert [kind.objects.count() for kind in kinds] == [1, 1, 1, 1]
    assert SignInLink.objects.get().expires_at > NOW
