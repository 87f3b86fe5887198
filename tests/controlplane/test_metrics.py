"""Metrics of the control plane, and the line that each request leaves in the log."""

import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from controlplane.duties.domain.letters import bury, recover
from controlplane.duties.domain.parcels import EMPTY
from controlplane.duties.models import Duty
from controlplane.identity import domain
from controlplane.identity.domain import upkeep
from controlplane.logs import without_secrets
from enforcement.rules.policy import OrderKind
from tests.controlplane.world import Api, World

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(**headers: str) -> Samples:
    text = Client(headers=headers).get("/metrics").content.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_agents_are_counted_by_state(world: World) -> None:
    world.agent("a")
    killed = world.agent("b")
    domain.set_agent_state(agent_id=killed.pk, order=OrderKind.KILL, reason="x", **world.who)
    domain.retire_agent(agent_id=world.agent("c").pk, reason="x", **world.who)
    samples = scrape()
    assert samples["comptroller_agents", (("state", "active"),)] == 1
    assert samples["comptroller_agents", (("state", "killed"),)] == 1
    assert samples["comptroller_agents", (("state", "paused"),)] == 0
    assert samples["comptroller_organizations", ()] == 1


def test_the_workers_pulse_has_an_age(world: World) -> None:
    assert ("comptroller_worker_pulse_age_seconds", ()) not in scrape()
    upkeep.beat(now=timezone.now() - timedelta(seconds=30))
    assert 30 <= scrape()["comptroller_worker_pulse_age_seconds", ()] < 60


def test_duties_tell_how_late_and_how_well_they_are(world: World) -> None:
    Duty.objects.create(
        name="sweep",
        due_at=timezone.now() - timedelta(seconds=90),
        runs=7,
        failures=2,
        busy_ms=1_500,
        last_ms=250,
    )
    Duty.objects.create(name="early", due_at=timezone.now() + timedelta(hours=1))
    samples, sweep = scrape(), (("duty", "sweep"),)
    assert 90 <= samples["comptroller_duty_late_seconds", sweep] < 120
    assert samples["comptroller_duty_late_seconds", (("duty", "early"),)] == 0
    assert samples["comptroller_duty_runs_total", sweep] == 7
    assert samples["comptroller_duty_failures_total", sweep] == 2
    assert samples["comptroller_duty_busy_seconds_total", sweep] == 1.5
    assert samples["comptroller_duty_last_seconds", sweep] == 0.25


def test_letters_wait_until_they_are_settled(world: World) -> None:
    for task in ("a", "b"):
        bury(task, EMPTY, error="e", attempts=1, now=timezone.now())
    assert scrape()["comptroller_dead_letters", ()] == 2
    recover("a", now=timezone.now())
    assert scrape()["comptroller_dead_letters", ()] == 1


def test_messages_wait_in_queues_as_long_as_the_broker_answers(
    world: World, valkey_url: str, settings: Any
) -> None:
    settings.BROKER_URL = valkey_url
    samples = scrape()
    assert samples["comptroller_broker_up", ()] == 1
    assert {
        dict(labels)["queue"] for name, labels in samples if name == "comptroller_queue_messages"
    } == {"critical", "comptroller", "scrape"}
    settings.BROKER_URL = "redis://127.0.0.1:1/0"
    samples = scrape()
    assert samples["comptroller_broker_up", ()] == 0
    assert "comptroller_queue_messages" not in {name for name, _ in samples}


def test_requests_are_counted_by_route_not_by_path(world: World) -> None:
    labels = (("method", "GET"), ("route", "api/v1/agents/<uuid:pk>"), ("status", "404"))
    name = ("comptroller_http_requests_total", labels)
    before = scrape().get(name, 0)
    for _ in range(2):
        world.clients["owner"].call("GET", f"agents/{world.id}")
    assert scrape()[name] == before + 2


def test_paths_and_methods_that_nobody_knows_share_a_name(world: World) -> None:
    for number in range(3):
        Client().generic(f"X{number}", f"/nowhere/{number}")
    routes = {dict(labels).get("route") for _, labels in scrape()}
    methods = {dict(labels).get("method") for _, labels in scrape()}
    assert "unknown" in routes
    assert "other" in methods
    assert not {"nowhere/1", "X1"} & (routes | methods)


def test_a_token_can_be_asked_for(world: World, settings: Any) -> None:
    settings.METRICS_TOKEN = "hush"
    assert Client().get("/metrics").status_code == 401
    assert Client(headers={"Authorization": "Bearer wrong"}).get("/metrics").status_code == 401
    assert scrape(Authorization="Bearer hush")["comptroller_organizations", ()] == 1


def test_each_request_has_an_id_and_a_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "controlplane.request"):
        answer = world.clients["owner"].call("GET", "agents?slug=secret-name")
    line: Any = caplog.records[-1].msg
    assert {name: line[name] for name in ("method", "path", "status", "request_id")} == {
        "method": "GET",
        "path": "/api/v1/agents",
        "status": 200,
        "request_id": answer.headers["X-Request-Id"],
    }
    assert "secret-name" not in json.dumps(line)


def test_a_clients_own_request_id_is_not_believed(world: World) -> None:
    answer = Api().call("GET", "me", X_Request_Id="forged\nline")
    assert answer.headers["X-Request-Id"] != "forged\nline"


@pytest.mark.parametrize(
    ("event", "logged"),
    [
        (
            {"event": "Internal Server Error: /sign-in/S3cret/", "request": object()},
            {"event": "Internal Server Error: /sign-in/…/"},
        ),
        ({"path": "/sign-in/S3cret/?next=/"}, {"path": "/sign-in/…/?next=/"}),
        ({"path": "/sign-in/"}, {"path": "/sign-in/"}),
        ({"ms": 3}, {"ms": 3}),
    ],
)
def test_a_one_time_links_secret_is_never_logged(
    event: dict[str, Any], logged: dict[str, Any]
) -> None:
    assert without_secrets(None, "info", event) == logged
