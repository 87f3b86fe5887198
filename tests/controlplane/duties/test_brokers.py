"""Duties on real brokers: several beats, two workers, doubled messages, `kill -9`, a dead broker.

Each test runs on Valkey and on RabbitMQ.
"""

import os
import signal
import time
from datetime import datetime, timedelta
from itertools import pairwise

from controlplane.broker import waiting
from controlplane.celery import app
from controlplane.duties.models import Duty
from controlplane.duties.tasks import perform
from tests.brokers import Broker
from tests.controlplane.duties.conftest import Company
from tests.controlplane.duties.diary import NAME, QUEUES, ended, lines, no_two_at_once, wait_for


def test_three_beats_and_two_workers_take_each_turn_once(company: Company) -> None:
    for _ in range(2):
        company.worker()
    for _ in range(3):
        company.beat()
    wait_for(lambda: len(ended()) >= 6, company)

    seen = ended()
    apart = [after.began_at - before.began_at for before, after in pairwise(seen)]
    assert no_two_at_once(seen)
    # Due every 2 s, and found by a scan that comes up to half a second early.
    assert min(apart) > timedelta(seconds=1)
    assert sum(apart, timedelta()) / len(apart) < timedelta(seconds=4)


def test_twenty_deliveries_of_a_turn_do_it_once(company: Company, broker: Broker) -> None:
    for _ in range(2):
        company.worker(DIARY_EVERY_S="600")
    Duty.objects.create(name=NAME, due_at=datetime(2026, 1, 1).astimezone())
    with app.connection_for_write(broker.url) as link:
        for _ in range(20):
            perform.apply_async(kwargs={"duty": NAME}, connection=link)
        wait_for(lambda: len(ended()) == 1, company)
        wait_for(lambda: waiting(broker.url, QUEUES) == dict.fromkeys(QUEUES, 0), company)
    time.sleep(1)  # the last of them end

    assert len(lines()) == 1
    duty = Duty.objects.get(pk=NAME)
    assert (duty.runs, duty.failures, duty.attempts) == (1, 0, 0)


def test_a_turn_whose_worker_is_killed_is_done_by_another(company: Company) -> None:
    victim = company.worker(DIARY_WORK_S="60")
    company.beat()
    wait_for(lambda: len(lines()) == 1, company)
    company.worker(DIARY_WORK_S="0.2")
    os.killpg(victim.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    wait_for(lambda: len(ended()) >= 1, company)

    assert time.monotonic() - killed_at < 20
    first, *others = lines()
    assert first.ended_at is None
    assert no_two_at_once(others)
    wait_for(lambda: Duty.objects.get(pk=NAME).attempts == 0, company)


def test_a_broker_that_dies_and_comes_back_costs_no_turn(company: Company, broker: Broker) -> None:
    for _ in range(2):
        company.worker()
    company.beat()
    wait_for(lambda: len(ended()) >= 2, company)
    broker.kill()
    time.sleep(3)
    broker.start()
    before = len(ended())
    wait_for(lambda: len(ended()) >= before + 3, company)

    seen = ended()
    assert no_two_at_once(seen)
    assert len(lines()) - len(seen) <= 1  # one may be at work
    duty = Duty.objects.get(pk=NAME)
    assert duty.failures == 0


def test_a_broker_that_says_nothing_for_a_while_costs_no_turn(
    company: Company, broker: Broker
) -> None:
    for _ in range(2):
        company.worker()
    company.beat()
    wait_for(lambda: len(ended()) >= 2, company)
    broker.signal(signal.SIGSTOP)
    time.sleep(15)  # longer than the workers wait for an answer of Valkey
    broker.signal(signal.SIGCONT)
    before = len(ended())
    wait_for(lambda: len(ended()) >= before + 3, company)

    assert no_two_at_once(ended())
    assert Duty.objects.get(pk=NAME).failures == 0
