"""A kill reaches a book through its watch stream within a second of the API's answer."""

import threading
import time
from collections.abc import Iterator

import pytest

from controlplane.identity.domain import issue_api_token
from controlplane.identity.enums import Scope
from enforcement.models import Order, OrderAcknowledgement
from enforcement.rules.policy import OrderKind
from enforcement.rules.wire import OrderAck
from tests.controlplane.world import Api
from tests.enforcement.stack import ACTOR, Peer, Site, Watch, now


class Receiver:
    """A peer that Syncs whenever it is hinted, and notes when each order came."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.orders: list[tuple[float, OrderKind, str]] = []
        self.came = threading.Event()
        self._one_at_a_time = threading.Lock()
        self.watch = Watch(peer, self._hinted)

    def _hinted(self) -> None:
        with self._one_at_a_time:
            for order in self.peer.sync().orders:
                self.orders.append((time.monotonic(), order.kind, order.scope_id))
                acknowledgement = OrderAck(order.id, streams_cut=2, tokens_after=1, last_byte_ms=9)
                self.peer.book.acknowledge_order(acknowledgement)
                self.came.set()
            if self.peer.book.acknowledgements:
                self.peer.sync()


@pytest.fixture
def receiver(peer: Peer) -> Iterator[Receiver]:
    receiver = Receiver(peer)
    time.sleep(0.3)  # the hint of the beginning is behind us
    yield receiver
    receiver.watch.close()


@pytest.fixture
def api(site: Site) -> Api:
    token = issue_api_token(
        organization_id=site.organization.id,
        name="t",
        scopes=[Scope.READ, Scope.KILL],
        actor=ACTOR,
        now=now(),
    )
    return Api(token.secret)


def test_a_kill_reaches_the_book_within_a_second(site: Site, receiver: Receiver, api: Api) -> None:
    answer = api.call("POST", f"agents/{site.agent.pk}/kill", {"reason": "runs away"})
    answered_at = time.monotonic()
    assert receiver.came.wait(5)
    ((came_at, kind, scope),) = receiver.orders
    assert (kind, scope) == (OrderKind.KILL, str(site.agent.pk))
    assert came_at - answered_at < 1.0
    deadline = time.monotonic() + 5
    while not OrderAcknowledgement.objects.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    receipt = api.call("GET", f"orders/{answer.json()['id']}").json()
    assert (receipt["streams_cut"], receipt["waiting"]) == (2, [])
    (row,) = receipt["acknowledgements"]
    assert (row["book"], row["tokens_after"], row["last_byte_ms"]) == ("peer/0", 1, 9)


def test_each_order_comes_once_and_in_order(site: Site, peer: Peer, api: Api) -> None:
    for kind in ("kill", "resume", "pause"):
        api.call("POST", f"agents/{site.agent.pk}/{kind}", {"reason": "x"})
    orders = peer.sync().orders
    assert [order.kind for order in orders] == [OrderKind.KILL, OrderKind.RESUME, OrderKind.PAUSE]
    assert peer.sync().orders == []


def test_an_order_comes_again_when_its_answer_was_lost(site: Site, peer: Peer, api: Api) -> None:
    api.call("POST", f"agents/{site.agent.pk}/kill", {"reason": "x"})
    peer.sync(lose_answer=True)
    assert [order.kind for order in peer.sync().orders] == [OrderKind.KILL]


def test_a_receipt_is_stored_once(site: Site, peer: Peer, api: Api) -> None:
    api.call("POST", f"agents/{site.agent.pk}/kill", {"reason": "x"})
    (order,) = peer.sync().orders
    peer.book.acknowledge_order(OrderAck(order.id, streams_cut=1))
    peer.sync(lose_answer=True)
    peer.sync()
    assert OrderAcknowledgement.objects.get().streams_cut == 1


def test_a_fresh_book_learns_of_a_kill_from_the_policy_alone(
    url: str, site: Site, api: Api
) -> None:
    api.call("POST", f"agents/{site.agent.pk}/kill", {"reason": "x"})
    fresh = Peer(url, site.token)
    assert [agent.state for agent in fresh.hello().policy.agents] == ["killed"]
    assert fresh.sync().orders == []


def test_a_book_that_comes_back_catches_up_on_orders(site: Site, peer: Peer, api: Api) -> None:
    first = api.call("POST", f"agents/{site.agent.pk}/kill", {"reason": "x"}).json()["cursor"]
    peer.sync()
    assert peer.book.order_cursor == first
    api.call("POST", f"agents/{site.agent.pk}/resume", {"reason": "x"})
    peer.hello()
    assert [order.kind for order in peer.sync().orders] == [OrderKind.RESUME]


def test_anothers_orders_are_not_told(url: str, site: Site, peer: Peer, api: Api) -> None:
    from tests.enforcement.stack import make_site

    rival = make_site("rival")
    stranger = Peer(url, rival.token)
    stranger.hello()
    api.call("POST", f"agents/{site.agent.pk}/kill", {"reason": "x"})
    stranger.book.acknowledge_order(OrderAck(str(Order.objects.get().pk)))
    assert stranger.sync().orders == []
    assert not OrderAcknowledgement.objects.exists()


def test_a_watch_beats_while_nothing_happens(receiver: Receiver) -> None:
    deadline = time.monotonic() + 6
    while receiver.watch.beats < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert receiver.watch.beats >= 2
