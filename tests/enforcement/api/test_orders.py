"""Kill, pause, throttle and resume over the REST API, and what comes back of them."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from controlplane.audit.models import AuditEntry
from controlplane.identity.domain import issue_api_token, retire_agent
from controlplane.identity.enums import Scope
from controlplane.identity.ids import new_id
from controlplane.identity.models import Agent, Organization
from enforcement.domain.policy import compile_policy
from enforcement.models import Order, OrderAcknowledgement, Spool
from enforcement.rules.policy import AgentState, SessionPolicy
from tests.controlplane.world import Api, World
from tests.enforcement.api.conftest import make_book


def acknowledge(order: Order, book: Spool, *, after_ms: int, streams_cut: int) -> None:
    OrderAcknowledgement.objects.create(
        order=order,
        spool=book,
        streams_cut=streams_cut,
        tokens_after=2,
        last_byte_ms=17,
        at=order.created_at + timedelta(milliseconds=after_ms),
    )


def test_a_kill_changes_the_state_and_writes_order_and_audit_entry(
    world: World, admin: Api, agent: Agent
) -> None:
    before = Organization.objects.get(pk=world.id).policy_revision
    answer = admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "runs away"})
    assert answer.status_code == 201
    body = answer.json()
    assert (body["kind"], body["scope_kind"], body["scope_id"]) == ("kill", "agent", str(agent.pk))
    assert (body["reason"], body["actor"]) == ("runs away", "admin")
    assert (body["acknowledgements"], body["waiting"], body["streams_cut"]) == ([], [], 0)
    agent.refresh_from_db()
    assert (agent.state, agent.state_reason) == ("killed", "runs away")
    assert Organization.objects.get(pk=world.id).policy_revision == before + 1
    entry = AuditEntry.objects.get(action="agent.kill")
    assert (entry.object_id, entry.reason, entry.actor_label) == (
        str(agent.pk),
        "runs away",
        "admin",
    )


@pytest.mark.parametrize(
    ("orders", "state"),
    [
        (["kill"], "killed"),
        (["pause"], "paused"),
        (["throttle"], "throttled"),
        (["kill", "resume"], "active"),
        (["throttle", "pause", "kill", "kill"], "killed"),
    ],
)
def test_orders_follow_the_table_of_states(
    admin: Api, agent: Agent, orders: list[str], state: str
) -> None:
    for kind in orders:
        answer = admin.call("POST", f"agents/{agent.pk}/{kind}", {"reason": "because"})
        assert answer.status_code == 201
    agent.refresh_from_db()
    assert agent.state == state
    assert list(Order.objects.order_by("cursor").values_list("kind", flat=True)) == orders


def test_what_the_table_does_not_have_is_a_conflict(admin: Api, agent: Agent) -> None:
    answer = admin.call("POST", f"agents/{agent.pk}/resume", {"reason": "because"})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:comptroller:problem:invalid-state-change"
    assert not Order.objects.exists()


def test_a_retired_agent_takes_no_orders(world: World, admin: Api, agent: Agent) -> None:
    retire_agent(agent_id=agent.pk, reason="done", **world.who)
    answer = admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "because"})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:comptroller:problem:agent-retired"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": "   "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": 5, "mode": "now"}, "mode"),
    ],
)
def test_an_order_says_why_and_nothing_else(
    admin: Api, agent: Agent, body: dict[str, object], field: str
) -> None:
    answer = admin.call("POST", f"agents/{agent.pk}/kill", body)
    assert answer.status_code == 400
    assert field in answer.json()["errors"]
    agent.refresh_from_db()
    assert agent.state == "active"


def test_the_same_key_kills_once(admin: Api, agent: Agent) -> None:
    first, second = (
        admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "x"}, Idempotency_Key="k1")
        for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]
    assert Order.objects.count() == 1


def test_only_callers_with_the_kill_scope_give_orders(
    world: World, viewer: Api, agent: Agent
) -> None:
    assert viewer.call("POST", f"agents/{agent.pk}/kill", {"reason": "x"}).status_code == 403
    writer = issue_api_token(name="w", scopes=[Scope.READ, Scope.AGENTS_WRITE], **world.who)
    refused = Api(writer.secret).call("POST", f"agents/{agent.pk}/kill", {"reason": "x"})
    assert refused.status_code == 403
    killer = issue_api_token(name="k", scopes=[Scope.KILL], **world.who)
    given = Api(killer.secret).call("POST", f"agents/{agent.pk}/kill", {"reason": "x"})
    assert given.status_code == 201


@pytest.mark.parametrize("name", ["nobody", "sidecar"])
def test_without_an_api_token_nobody_gives_orders(world: World, agent: Agent, name: str) -> None:
    answer = world.clients[name].call("POST", f"agents/{agent.pk}/kill", {"reason": "x"})
    assert answer.status_code == 401


def test_another_organizations_agent_is_as_unknown_as_none(foreigner: Api, agent: Agent) -> None:
    answers = []
    for missing in (agent.pk, new_id()):
        answer = foreigner.call("POST", f"agents/{missing}/kill", {"reason": "x"})
        answers.append((answer.status_code, answer.content.replace(str(missing).encode(), b"-")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    agent.refresh_from_db()
    assert agent.state == "active"


def test_an_order_tells_who_has_acknowledged_and_who_has_not(
    admin: Api, agent: Agent, book: Spool
) -> None:
    silent = make_book(book.sidecar, "edge-1/1")
    body = admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "x"}).json()
    assert {row["spool"] for row in body["waiting"]} == {str(book.pk), str(silent.pk)}
    acknowledge(Order.objects.get(), book, after_ms=120, streams_cut=3)
    body = admin.call("GET", f"orders/{body['id']}").json()
    assert body["streams_cut"] == 3
    (receipt,) = body["acknowledgements"]
    assert (receipt["spool"], receipt["book"], receipt["sidecar_name"]) == (
        str(book.pk),
        "edge-1/0",
        "edge-1",
    )
    assert (receipt["streams_cut"], receipt["tokens_after"]) == (3, 2)
    assert (receipt["last_byte_ms"], receipt["after_ms"]) == (17, 120)
    assert [row["book"] for row in body["waiting"]] == ["edge-1/1"]


def test_a_book_that_died_long_ago_is_not_waited_for(admin: Api, agent: Agent, book: Spool) -> None:
    Spool.objects.filter(pk=book.pk).update(last_sync_at=book.last_sync_at - timedelta(hours=1))
    assert admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "x"}).json()["waiting"] == []


def test_orders_are_listed_newest_first_and_filtered(admin: Api, agent: Agent) -> None:
    for kind in ("pause", "kill"):
        admin.call("POST", f"agents/{agent.pk}/{kind}", {"reason": "x"})
    rows = admin.call("GET", "orders").json()["results"]
    assert [row["kind"] for row in rows] == ["kill", "pause"]
    rows = admin.call("GET", f"orders?kind=pause&scope_id={agent.pk}").json()["results"]
    assert [row["kind"] for row in rows] == ["pause"]
    assert admin.call("GET", "orders?agent=1").status_code == 400


def test_anothers_orders_are_not_shown(foreigner: Api, admin: Api, agent: Agent) -> None:
    order = admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "x"}).json()["id"]
    assert foreigner.call("GET", "orders").json()["results"] == []
    assert foreigner.call("GET", f"orders/{order}").status_code == 404


@pytest.mark.parametrize("orders", [1, 3])
def test_the_list_of_orders_takes_the_same_queries_at_any_length(
    viewer: Api,
    admin: Api,
    agent: Agent,
    orders: int,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for _ in range(orders):
        admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "x"})
    viewer.call("GET", "orders")
    with django_assert_num_queries(3):  # token, membership, orders
        assert len(viewer.call("GET", "orders").json()["results"]) == orders


def test_a_drain_and_its_last_call_stand_in_the_policy(
    world: World, admin: Api, agent: Agent
) -> None:
    admin.call("PATCH", f"agents/{agent.pk}", {"priority": 4, "hand_back_tokens": 300})
    answer = admin.call("POST", f"agents/{agent.pk}/pause", {"reason": "calm down", "drain": True})
    assert (answer.status_code, answer.json()["drain"]) == (201, True)
    (policy,) = (
        found
        for found in compile_policy(organization_id=world.id, now=timezone.now()).agents
        if found.id == str(agent.pk)
    )
    assert (policy.state, policy.draining) == ("paused", True)
    assert (policy.priority, policy.hand_back_tokens) == (4, 300)
    admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "at once"})
    agent.refresh_from_db()
    assert (agent.state, agent.state_drains) == ("killed", False)


def test_one_session_is_killed_then_resumed(world: World, admin: Api, agent: Agent) -> None:
    url = f"agents/{agent.pk}"
    killed = admin.call("POST", f"{url}/kill", {"reason": "loops", "session": "run 7/a"})
    assert killed.status_code == 201
    assert (killed.json()["scope_kind"], killed.json()["scope_session"]) == ("session", "run 7/a")
    agent.refresh_from_db()
    assert agent.state == "active"
    policy = compile_policy(organization_id=world.id, now=timezone.now())
    assert policy.sessions == [SessionPolicy(str(agent.pk), "run 7/a", AgentState.KILLED)]
    paused = admin.call(
        "POST", f"{url}/pause", {"reason": "wait", "session": "run 7/a", "drain": True}
    )
    assert paused.json()["drain"] is True
    resumed = admin.call("POST", f"{url}/resume", {"reason": "fine", "session": "run 7/a"})
    assert resumed.status_code == 201
    assert compile_policy(organization_id=world.id, now=timezone.now()).sessions == []
    assert list(
        AuditEntry.objects.filter(action__startswith="session.")
        .order_by("id")
        .values_list("action", flat=True)
    ) == ["session.kill", "session.pause", "session.resume"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("resume", {"reason": "x", "session": "never stopped"}, 409),
        ("kill", {"reason": " ", "session": "s"}, 400),
        ("kill", {"reason": "x", "session": ""}, 400),
        ("kill", {"reason": "x", "session": "s" * 257}, 400),
        ("kill", {"reason": "x", "drain": "perhaps"}, 400),
        ("throttle", {"reason": "x", "session": "s"}, 400),
        ("throttle", {"reason": "x", "drain": True}, 400),
    ],
)
def test_what_a_session_cannot_be_told(
    admin: Api, agent: Agent, kind: str, body: dict[str, object], status: int
) -> None:
    assert admin.call("POST", f"agents/{agent.pk}/{kind}", body).status_code == status
    assert not Order.objects.exists()


def test_the_oldest_stopped_sessions_are_forgotten(
    world: World, admin: Api, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enforcement.domain.orders.MAX_STOPPED_SESSIONS", 2)
    for n in range(4):
        admin.call("POST", f"agents/{agent.pk}/kill", {"reason": "x", "session": f"s{n}"})
    policy = compile_policy(organization_id=world.id, now=timezone.now())
    assert [stopped.session for stopped in policy.sessions] == ["s2", "s3"]
