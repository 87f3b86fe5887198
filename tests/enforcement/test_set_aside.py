"""A usage event that cannot be true harms no other, and is not lost."""

import json
import time
from typing import Any
from uuid import uuid4

import msgspec
from django.utils import timezone
from prometheus_client import REGISTRY

from budgets.domain.budgets import BudgetSpec, create_budget
from budgets.domain.verify import verify
from budgets.models import Balance, Notification, RejectedEvent, UsageEvent
from enforcement.rules.policy import Mode, ScopeKind, Unit
from enforcement.rules.wire import Outcome, UsageAnswer
from enforcement.rules.wire import UsageEvent as WireEvent
from tests.enforcement.stack import ACTOR, Peer, Site, post


def test_an_impossible_event_is_set_aside_and_the_others_are_booked_once(
    site: Site, peer: Peer
) -> None:
    def event(**changes: Any) -> dict[str, Any]:
        values = {"id": str(uuid4()), "agent": str(site.agent.id), "model": "m", "input_tokens": 3}
        at_ms = int(time.time() * 1000)
        return values | {"started_at_ms": at_ms, "outcome": "completed"} | changes

    bad = [
        event(output_tokens=-1),
        event(outcome="exploded"),
        event(agent="nobody"),
        event(input_tokens="many"),
        event(charge_nanos=2**70),
        event(attempt=2**40),
        event(tags={"no UTF-8": "x"}),
        event(id="no UTF-8"),
        {"id": "x" * 100, "text": "\x00" * 40_000},
        [],
    ]
    good = [event(), event()]
    header = msgspec.to_builtins(peer.book.make_header())
    message = {"header": header, "events": [good[0], *bad, good[1]], "position": 9}
    body = json.dumps(message).encode().replace(b"no UTF-8", b"\xd9")
    first = post(peer.url + "usage", peer.token, body, UsageAnswer)
    assert first == UsageAnswer(2, 0, 9, rejected=len(bad))
    assert post(peer.url + "usage", peer.token, body, UsageAnswer) == UsageAnswer(0, 2, 9, len(bad))
    assert UsageEvent.objects.count() == 2
    rows = {row.event: row for row in RejectedEvent.objects.all()}
    assert RejectedEvent.objects.count() == len(bad)
    first_bad = rows[str(bad[0]["id"])]  # type: ignore[index]
    assert first_bad.reason.endswith("a count is negative or beyond 62 bits")
    assert (json.loads(first_bad.document), first_bad.whole) == (bad[0], True)
    large = rows["x" * 64]
    assert (len(large.document), large.whole, large.size_bytes) == (16_384, False, 240_122)
    assert Notification.objects.get().title == "10 usage events cannot be true and were set aside"
    report = verify()
    assert (report.rejected_events, report.holds) == (len(bad), True)


def test_a_sum_that_no_column_can_hold_spoils_no_other_event(site: Site, peer: Peer) -> None:
    create_budget(
        organization_id=site.organization.id,
        spec=BudgetSpec(
            name="all",
            scope_kind=ScopeKind.ORGANIZATION,
            scope_id=site.organization.id,
            unit=Unit.USD,
            limit_amount=1,
            mode=Mode.SOFT,
        ),
        actor=ACTOR,
        now=timezone.now(),
    )
    events = [
        WireEvent(
            id=str(uuid4()),
            agent=str(site.agent.id),
            model="m",
            started_at_ms=int(time.time() * 1000),
            outcome=Outcome.COMPLETED,
            charge_nanos=charge,
        )
        for charge in (2**62, 5, 2**62, 7)
    ]
    assert peer.usage(*events) == UsageAnswer(3, 0, 7, rejected=1)
    assert Balance.objects.get().spent_amount == 2**62 + 12
    assert RejectedEvent.objects.get().event == events[2].id


def test_what_contradicts_a_booked_event_is_counted_apart_from_repeats(
    site: Site, peer: Peer
) -> None:
    def counted() -> list[float]:
        name = "comptroller_usage_events_total"
        results = ("booked", "duplicate", "contradicting", "untrue")
        return [REGISTRY.get_sample_value(name, {"result": one}) or 0 for one in results]

    def event(charge_nanos: int) -> WireEvent:
        return WireEvent(
            id=event_id,
            agent=str(site.agent.id),
            model="m",
            started_at_ms=int(time.time() * 1000) // 1000 * 1000,
            outcome=Outcome.COMPLETED,
            charge_nanos=charge_nanos,
        )

    event_id, before = str(uuid4()), counted()
    said = event(5)
    assert peer.usage(said) == UsageAnswer(1, 0, 7)
    assert peer.usage(said, event(6), event(-1)) == UsageAnswer(0, 1, 7, rejected=2)
    after = counted()
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]
    assert {row.reason.rpartition(": ")[2] for row in RejectedEvent.objects.all()} == {
        "a count is negative or beyond 62 bits",
        "its id was booked with other content, or for another organization",
    }
    assert UsageEvent.objects.get().charge_nanos == 5
