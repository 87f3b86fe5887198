"""What is wrong with a message is said, and harms nobody else."""

import http.client
import json
import threading
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import pytest

from budgets.domain.incarnation import begin_incarnation
from budgets.models import Lease, UsageEvent
from controlplane.identity.domain import issue_api_token
from controlplane.identity.enums import Scope
from enforcement.domain.enrolment import enrol_sidecar, revoke_sidecar
from enforcement.models import ServingNode, Sidecar, Spool
from enforcement.rules.book import Effects
from enforcement.rules.policy import Per
from enforcement.rules.wire import DenialCause, LeaseReport, SessionInfo, UpstreamInfo
from enforcement.rules.wire import UsageEvent as WireEvent
from tests.enforcement.stack import ACTOR, HttpError, Peer, Site, counters, make_site, now
from tests.enforcement.test_leasing import granted


def call(
    url: str, method: str, path: str, *, token: str = "", body: bytes = b"", **headers: str
) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
    """One raw request: status, problem document, headers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=15)
    fields = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, f"/sidecar/v1/{path}", body, fields | headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content), answer.headers


def sync_of(peer: Peer, **changes: Any) -> dict[str, Any]:
    sync: dict[str, Any] = msgspec.to_builtins(peer.book.make_sync(now_ns=time.monotonic_ns()))
    return sync | changes


def post(peer: Peer, path: str, message: Any) -> tuple[int, str]:
    """Status and what is said about it."""
    status, problem, _ = call(
        peer.url.removesuffix("/sidecar/v1/"),
        "POST",
        path,
        token=peer.token,
        body=json.dumps(message).encode(),
    )
    return status, problem.get("detail", "")


# ------------------------------------------------------------------------------- who calls


@pytest.mark.parametrize("path", ["hello", "sync", "usage"])
@pytest.mark.parametrize("token", ["", "nonsense", "cmp_sidecar_AAAAAAAAAAAAAAAA_BBBBBBBBBBBBBBBB"])
def test_without_a_sidecars_token_nothing_is_read(url: str, path: str, token: str) -> None:
    status, problem, headers = call(url, "POST", path, token=token, body=b"{}")
    assert (status, problem["type"]) == (401, "urn:comptroller:problem:credential")
    assert headers["content-type"] == "application/problem+json"
    assert headers["www-authenticate"] == "Bearer"


def test_an_api_token_is_no_sidecars_token(url: str, site: Site) -> None:
    issued = issue_api_token(
        organization_id=site.organization.id, name="t", scopes=[Scope.ADMIN], actor=ACTOR, now=now()
    )
    assert call(url, "POST", "sync", token=issued.secret, body=b"{}")[0] == 401


def test_a_watch_needs_a_token(url: str) -> None:
    assert call(url, "GET", "watch?spool=x")[0] == 401


def test_a_revoked_sidecar_is_refused_within_a_second(site: Site, peer: Peer) -> None:
    peer.sync()
    revoke_sidecar(
        organization_id=site.organization.id, sidecar_id=site.sidecar.pk, actor=ACTOR, now=now()
    )
    time.sleep(1.05)
    with pytest.raises(HttpError, match="revoked") as refused:
        peer.sync()
    assert refused.value.status == 401


def test_a_siblings_token_cannot_speak_for_a_spool(url: str, site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    lease = granted(peer, site, budget, 100)
    sibling = enrol_sidecar(
        organization_id=site.organization.id, name="s2", actor=ACTOR, now=now()
    ).secret
    honest = peer.token
    peer.token = sibling
    report = msgspec.to_builtins(LeaseReport(lease=lease, used=0, returned=100, final=True))
    status, detail = post(peer, "sync", sync_of(peer, reports=[report]))
    assert (status, detail) == (403, "this spool belongs to another sidecar")
    peer.token = honest
    peer.sync()
    assert counters(budget) == (0, 100, 0, 0)


def test_a_message_for_another_organization_is_refused(site: Site, peer: Peer) -> None:
    message = sync_of(peer)
    message["header"]["organization"] = str(make_site("rival").organization.id)
    assert post(peer, "sync", message)[0] == 403


# ------------------------------------------------------------------------------- what they say


def test_an_unknown_address_is_not_found(url: str, site: Site) -> None:
    status, problem, _ = call(url, "POST", "grants", token=site.token, body=b"{}")
    assert (status, problem["type"]) == (404, "urn:comptroller:problem:not-found")
    assert call(url, "GET", "sync", token=site.token)[0] == 404


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"header": 1}', b"\xff", b"[" * 100_000, b'{"header": {}}']
)
def test_what_is_no_message_is_said_to_be_none(url: str, site: Site, body: bytes) -> None:
    status, problem, _ = call(url, "POST", "sync", token=site.token, body=body)
    assert (status, problem["type"]) == (422, "urn:comptroller:problem:message")


def test_another_protocol_is_refused(peer: Peer) -> None:
    message = sync_of(peer)
    message["header"]["protocol"] = 2
    assert post(peer, "sync", message) == (422, "protocol 2: this server speaks 1")


def test_a_body_has_a_limit(url: str, site: Site) -> None:
    body = b'{"x": "' + b"y" * (16 * 1024 * 1024) + b'"}'
    try:
        status, problem, _ = call(url, "POST", "sync", token=site.token, body=body)
    except ConnectionError:
        return  # the server closed before all was sent, which is as good
    assert (status, problem["type"]) == (413, "urn:comptroller:problem:body-too-large")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spool": "me"}, "not an id: 'me'"),
        ({"epoch": -1}, "the header has a number that cannot be"),
        ({"epoch": 2**40}, "the header has a number that cannot be"),
        ({"order_cursor": 2**63}, "the header has a number that cannot be"),
    ],
)
def test_a_header_must_be_possible(peer: Peer, change: dict[str, Any], words: str) -> None:
    message = sync_of(peer)
    message["header"] |= change
    assert post(peer, "sync", message) == (422, words)


@pytest.mark.parametrize(
    "report",
    [
        {"lease": "x", "used": 0, "returned": 0},
        {"lease": str(uuid4()), "used": -1, "returned": 0},
        {"lease": str(uuid4()), "used": 0, "returned": 2**63},
        {"lease": str(uuid4()), "used": 0, "returned": 0, "overrun": 2**80},
        {"lease": str(uuid4()), "used": 0.5, "returned": 0},
    ],
)
def test_a_report_must_be_possible(peer: Peer, report: dict[str, Any]) -> None:
    assert post(peer, "sync", sync_of(peer, reports=[report]))[0] == 422


@pytest.mark.parametrize(
    ("item", "wait_ms"),
    [
        ({"floor": 2, "need": 1, "want": 2}, 150),
        ({"floor": 0, "need": 0, "want": 1}, 150),
        ({"floor": 0, "need": 2, "want": 1}, 150),
        ({"floor": -1, "need": 1, "want": 1}, 150),
        ({"floor": 0, "need": 1, "want": 2**63}, 150),
        ({"floor": 0, "need": 1, "want": 1}, 3_600_000),
        ({"floor": 0, "need": 1, "want": 1}, -1),
    ],
)
def test_a_group_must_be_possible(
    site: Site, peer: Peer, item: dict[str, int], wait_ms: int
) -> None:
    group = {
        "key": str(uuid4()),
        "attribution": {"agent": str(site.agent.id)},
        "items": [{"budget": str(uuid4()), "value": "", **item}],
        "wait_ms": wait_ms,
    }
    assert post(peer, "sync", sync_of(peer, groups=[group]))[0] == 422


def test_a_group_asks_for_something_and_once(site: Site, peer: Peer) -> None:
    empty = {"key": str(uuid4()), "attribution": {"agent": str(site.agent.id)}, "items": []}
    assert "asks for nothing" in post(peer, "sync", sync_of(peer, groups=[empty]))[1]
    item = {"budget": str(uuid4()), "value": "", "floor": 1, "need": 1, "want": 1}
    twice = empty | {"items": [item, item]}
    assert "names a balance twice" in post(peer, "sync", sync_of(peer, groups=[twice]))[1]
    one = empty | {"items": [item]}
    assert "stands in the message twice" in post(peer, "sync", sync_of(peer, groups=[one, one]))[1]


def test_fields_of_a_later_version_are_ignored(peer: Peer) -> None:
    assert post(peer, "sync", sync_of(peer, of_the_future=1))[0] == 200


# ------------------------------------------------------------------------------- harm to others


def test_a_session_name_that_cannot_be_stored_denies_its_own_group_only(
    site: Site, peer: Peer
) -> None:
    per_agent = site.budget(1_000)
    per_session = site.budget(1_000, name="each session", per=Per.SESSION)
    peer.learn(site)
    agent = str(site.agent.id)
    bad = [
        peer.ask(agent, str(per_session.id), need=1, value=name, session=name)
        for name in ("a\0b", "x" * 201)
    ]
    good = peer.ask(agent, str(per_agent.id), need=1)
    effects = peer.sync()
    assert list(effects.granted) == [good]
    assert [effects.denied[key].cause for key in bad] == [DenialCause.MISMATCH] * 2


def test_sessions_with_odd_names_are_shown_without_them(site: Site, peer: Peer) -> None:
    session = SessionInfo(str(site.agent.id), "a\0b", "m", "n", 1, 2, 3, 4)
    message = sync_of(peer, sessions=[msgspec.to_builtins(session)])
    assert post(peer, "sync", message)[0] == 200
    (shown,) = Spool.objects.get(pk=peer.book.spool).sessions
    assert (shown["session"], shown["output_tokens"]) == ("a\ufffdb", 2)


def test_a_group_that_waits_cannot_be_taken_by_another_book(
    url: str, site: Site, peer: Peer
) -> None:
    budget = site.budget(100)
    peer.learn(site)
    granted(peer, site, budget, 100)
    waiting, thief = Peer(url, site.token), Peer(url, site.token)
    waiting.hello()
    thief.hello()
    agent, key = str(site.agent.id), str(uuid4())
    waiting.ask(agent, str(budget.id), need=10, floor=10, key=key, wait_ms=800)
    outcome: list[Effects] = []
    thread = threading.Thread(target=lambda: outcome.append(waiting.sync()))
    thread.start()
    time.sleep(0.2)
    thief.ask(agent, str(budget.id), need=10, floor=10, key=key)
    with pytest.raises(HttpError, match="waits for another book") as refused:
        thief.sync()
    assert refused.value.status == 422
    thread.join(10)
    assert outcome[0].denied[key].cause is DenialCause.HELD


def test_a_ledger_with_a_new_incarnation_asks_for_hello(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000)
    peer.learn(site)
    begin_incarnation(now=now())
    peer.ask(str(site.agent.id), str(budget.id), need=10)
    assert peer.sync().rehello
    assert not Lease.objects.exists()
    peer.hello()
    peer.sync()
    assert Lease.objects.count() == 1


# ------------------------------------------------------------------------------- hello and usage


@pytest.mark.parametrize(
    "names", [["a", "a"], [""], ["x" * 101], ["n\0"], [str(n) for n in range(201)]]
)
def test_serving_nodes_have_names_of_their_own(peer: Peer, names: list[str]) -> None:
    with pytest.raises(HttpError) as refused:
        peer.hello([UpstreamInfo(name=name, base_url="http://x") for name in names])
    assert refused.value.status == 422
    assert not ServingNode.objects.exists()


def test_a_hello_registers_nodes_and_tells_when_the_sidecar_was_seen(
    site: Site, peer: Peer
) -> None:
    models = ["m1", "m2"]
    peer.hello([UpstreamInfo("n1", "http://127.0.0.1:1", engine="llama.cpp", models=models)])
    node = ServingNode.objects.get()
    assert (node.name, node.models, node.sidecar_id) == ("n1", models, site.sidecar.pk)
    Sidecar.objects.update(last_seen_at=None)
    peer.sync()
    assert Sidecar.objects.get().last_seen_at is not None


def test_usage_is_booked_once(site: Site, peer: Peer) -> None:
    event = WireEvent(
        id=str(uuid4()),
        agent=str(site.agent.id),
        model="m",
        started_at_ms=int(time.time() * 1000),
        outcome="completed",  # type: ignore[arg-type]
        input_tokens=3,
        output_tokens=4,
    )
    first, second = peer.usage(event), peer.usage(event)
    assert (first.accepted, first.duplicates, first.position) == (1, 0, 7)
    assert (second.accepted, second.duplicates) == (0, 1)
    assert UsageEvent.objects.get().output_tokens == 4
