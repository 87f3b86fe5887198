"""Tasks that end badly, on real brokers: killed, past their limit, unknown, delivered twice.

Each test runs on Valkey and on RabbitMQ, but for what only Valkey does.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.broker import waiting
from controlplane.celery import app
from controlplane.duties.domain.parcels import KILLED
from controlplane.duties.domain.rules import MOST_ATTEMPTS
from controlplane.duties.enums import LetterState
from controlplane.duties.failures import UNKNOWN
from controlplane.duties.models import DeadLetter, Duty
from tests.brokers import Broker, Valkey
from tests.controlplane.duties.conftest import Company
from tests.controlplane.duties.diary import NAME, QUEUES, ended, lines, no_two_at_once, wait_for

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def send(broker: Broker, tasks: Iterable[str], **options: Any) -> None:
    with app.connection_for_write(broker.url) as link:
        for task in tasks:
            app.send_task(task, connection=link, **options)


def letter(task: str) -> DeadLetter | None:
    return DeadLetter.objects.filter(task=task).first()


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ("tests.die", "billiard.exceptions.WorkerLostError"),
        ("tests.hang", "billiard.exceptions.TimeLimitExceeded"),
        ("tests.of_another_version", UNKNOWN),
    ],
)
def test_a_task_that_ends_badly_leaves_one_letter_and_stops_nobody(
    company: Company, broker: Broker, task: str, error: str
) -> None:
    company.worker(DIARY_WORK_S="0")
    send(broker, [task, "tests.note"])
    wait_for(lambda: letter(task) is not None and len(ended()) == 1, company)
    wait_for(lambda: waiting(broker.url, QUEUES) == dict.fromkeys(QUEUES, 0), company)
    time.sleep(2)  # nobody is given the message again

    found = DeadLetter.objects.get()
    assert (found.task, found.error, found.attempts) == (task, error, 1)
    assert found.state == LetterState.DEAD


def test_a_turn_that_kills_every_process_is_given_up(company: Company) -> None:
    Duty.objects.create(name=NAME, due_at=LONG_AGO)
    company.worker(DIARY_DIES="1", DIARY_WORK_S="0", DIARY_EVERY_S="600")
    company.beat(DIARY_EVERY_S="600")
    wait_for(lambda: letter(NAME) is not None, company)

    found = DeadLetter.objects.get()
    assert (found.task, found.error, found.attempts) == (NAME, KILLED, MOST_ATTEMPTS)
    assert len(lines()) == MOST_ATTEMPTS
    duty = Duty.objects.get(pk=NAME)
    assert (duty.attempts, duty.due_at > LONG_AGO) == (0, True)


def test_nodes_that_hang_hold_up_no_turn_of_a_budget(company: Company, broker: Broker) -> None:
    company.worker(queues="critical,comptroller")
    company.worker(queues="scrape")
    send(broker, ["tests.scrape"] * 5, queue="scrape")
    company.beat()
    wait_for(lambda: len(ended()) >= 5, company)

    seen = ended()
    assert (seen[-1].began_at - seen[0].began_at).total_seconds() < 4 * 4
    assert waiting(broker.url, ["scrape"])["scrape"] >= 3  # all this time the node hung


def test_what_valkey_delivers_a_second_time_does_no_turn_twice(
    company: Company, broker: Broker
) -> None:
    """A visibility timeout far below what the work takes, which ours never is."""
    if not isinstance(broker, Valkey):
        pytest.skip("RabbitMQ gives a message to nobody else while the connection lives")
    Duty.objects.create(name=NAME, due_at=LONG_AGO)
    for _ in range(2):
        company.worker(DIARY_EVERY_S="600", DIARY_WORK_S="8", VISIBILITY_TIMEOUT_S="2")
    wait_for(lambda: company.logs().count("worker ready") == 2, company)
    send(broker, ["duties.perform"], kwargs={"duty": NAME})
    wait_for(lambda: len(ended()) == 1, company)
    wait_for(lambda: waiting(broker.url, QUEUES) == dict.fromkeys(QUEUES, 0), company)
    duty = Duty.objects.get(pk=NAME)
    assert (len(lines()), duty.runs, duty.attempts) == (1, 1, 0)

    send(broker, ["tests.note"])  # nobody's duty: so the timeout did what it says
    wait_for(lambda: len(ended()) >= 3, company)
    assert not no_two_at_once(lines())
