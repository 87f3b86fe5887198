"""Health: what makes the API unready, and what is only told."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from controlplane.identity.domain import upkeep

pytestmark = pytest.mark.django_db


def ready() -> tuple[int, dict[str, str]]:
    answer = Client().get("/readyz")
    return answer.status_code, answer.json()["checks"]


def test_a_process_that_answers_is_healthy(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        answer = Client().get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")


def test_ready_with_everything_there() -> None:
    upkeep.beat(now=timezone.now())
    assert ready() == (
        200,
        {
            "database": "ok",
            "migrations": "ok",
            "durability": "ok",
            "broker": "ok",
            "worker": "ok",
        },
    )


def test_a_worker_that_is_late_is_told_but_does_not_count() -> None:
    assert ready()[1]["worker"] == "not seen yet"
    upkeep.beat(now=timezone.now() - timedelta(seconds=90))
    status, checks = ready()
    assert (status, checks["worker"]) == (200, "last seen 90 s ago")


def test_without_a_broker_the_api_serves(settings: Any) -> None:
    settings.BROKER_URL = "redis+socket:///nowhere/at/all.sock"
    status, checks = ready()
    assert (status, checks["broker"]) == (200, "failed: OperationalError")


def test_without_durable_commits_nothing_is_ready() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    status, checks = ready()
    assert (status, checks["durability"]) == (503, "synchronous_commit is off")


def test_with_a_migration_missing_nothing_is_ready() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'audit' AND name LIKE '0002%'")
    status, checks = ready()
    assert (status, checks["migrations"]) == (503, "1 missing")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_they_are_only_read(path: str) -> None:
    assert Client().post(path).status_code == 405
