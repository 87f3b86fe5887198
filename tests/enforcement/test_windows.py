"""Windows at work: rolling ones in the ledger, leases of the coming one, and ends that refuse."""

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from budgets.domain.verify import verify
from budgets.models import Balance, Lease, Transfer
from enforcement.leasing.balances import Key, Wanted, wanted
from enforcement.rules.lots import Need
from enforcement.rules.policy import BudgetPolicy, ScopeKind, Unit, WindowSpec
from enforcement.rules.windows import EPOCH
from enforcement.rules.wire import Attribution, DenialCause, Group, GroupItem
from tests.enforcement.stack import Peer, Site, counters, now
from tests.enforcement.test_leasing import granted, use

TTL_MS = 10_000


def policy(**window: object) -> BudgetPolicy:
    spec = WindowSpec(**window)  # type: ignore[arg-type]
    return BudgetPolicy("b", "B", ScopeKind.AGENT, "a", Unit.TOKENS, 10, window=spec)


def windows_of(budget: BudgetPolicy, *, at: str, ahead: bool = False) -> list[Wanted] | DenialCause:
    group = Group("k", Attribution(agent="a"), [GroupItem("b", "", 1, 1, 1)], ahead=ahead)
    instant = datetime.fromisoformat(at).replace(tzinfo=UTC)
    return wanted(group, [budget], now=instant, lease_ttl_ms=TTL_MS)


@pytest.mark.parametrize(
    ("at", "outcome"),
    [
        ("2026-05-13T10:59:39", DenialCause.EARLY),
        ("2026-05-13T10:59:40", "2026-05-13T11:00"),
        ("2026-05-13T11:00:00", DenialCause.EARLY),
    ],
)
def test_the_coming_window_opens_to_asks_in_the_last_two_lifetimes(
    at: str, outcome: object
) -> None:
    found = windows_of(policy(kind="calendar", period="hour"), at=at, ahead=True)
    if isinstance(found, list):
        (want,) = found
        start = datetime.fromisoformat(str(outcome)).replace(tzinfo=UTC)
        assert want.window == (start, start + timedelta(hours=1))
        assert want.key == Key("b", "", start)
    else:
        assert found is outcome


def test_nothing_comes_after_a_lifetime() -> None:
    assert windows_of(policy(), at="2026-05-13T10:59:59", ahead=True) is DenialCause.EARLY


def test_the_next_part_of_a_rolling_window_is_in_the_same_balance() -> None:
    rolling = policy(kind="rolling", length_s=2_880, parts=48)
    assert windows_of(rolling, at="2026-05-13T10:00:39", ahead=True) is DenialCause.EARLY
    (want,) = windows_of(rolling, at="2026-05-13T10:00:41", ahead=True)  # type: ignore[misc]
    assert want.key == Key("b", "", EPOCH)


def test_a_budget_that_has_ended_denies() -> None:
    until = policy(kind="until", ends_at_s=1_778_666_400)  # 2026-05-13 10:00
    assert isinstance(windows_of(until, at="2026-05-13T09:59:59"), list)
    assert windows_of(until, at="2026-05-13T10:00:00") is DenialCause.ENDED


def test_a_rolling_balance_is_leased_used_and_turned(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000, window_kind="rolling", rolling_s=30, rolling_parts=1)
    peer.learn(site)
    lease = granted(peer, site, budget, 400)
    row = Lease.objects.get(pk=lease)
    assert row.expires_at.timestamp() <= (now().timestamp() // 30 + 1) * 30
    use(peer, budget, 300, 300)
    peer.sync()
    assert counters(budget) == (300, 100, 0, 0)
    balance = Balance.objects.get(budget=budget)
    assert sum(balance.ring_spent or ()) == 300
    assert verify().holds


def test_a_lease_of_the_next_part_opens_when_that_begins(site: Site, peer: Peer) -> None:
    budget = site.budget(1_000, window_kind="rolling", rolling_s=30, rolling_parts=1)
    peer.learn(site)
    while 30 - time.time() % 30 > 19:  # the last two lifetimes of a part
        time.sleep(0.25)
    granted(peer, site, budget, 100)
    (coming,) = peer.book.coming.values()
    peer.book.note_demand([Need(str(budget.id), "", 10)], now_ns=time.monotonic_ns())
    use(peer, budget, 10, 10)
    peer.book.ask_ahead(new_id=lambda: str(uuid4()), now_ns=coming.ask_at_ns - 1)
    assert not peer.book.pending
    in_use = peer.book.lots.by_balance[str(budget.id), ""][0]
    in_use.last_use_ns = coming.ask_at_ns
    peer.book.ask_ahead(new_id=lambda: str(uuid4()), now_ns=coming.ask_at_ns)
    peer.sync()
    (grant,) = peer.answer.grants
    assert 0 < grant.opens_in_ms <= 20_000
    lot = peer.book.lots.by_lease[grant.lease]
    assert not lot.usable(time.monotonic_ns())
    assert lot.usable(lot.opens_ns)
    assert Balance.objects.filter(budget=budget).count() == 1
    assert Transfer.objects.filter(kind="grant").count() == 2


def test_use_that_left_the_window_makes_room_again(site: Site, peer: Peer) -> None:
    budget = site.budget(100, window_kind="rolling", rolling_s=30, rolling_parts=1)
    peer.learn(site)
    granted(peer, site, budget, 100)
    use(peer, budget, 100, 100)
    key = peer.ask(str(site.agent.id), str(budget.id), need=1)
    denial = peer.sync().denied[key]
    assert denial.cause is DenialCause.LIMIT
    end_ms = (int(time.time()) // 30 + 2) * 30_000
    assert denial.window_ends_at_ms in (end_ms, end_ms - 30_000)
    balance = Balance.objects.get(budget=budget)
    balance.ring_newest = (balance.ring_newest or 0) - 2  # a minute passes
    balance.save(update_fields=["ring_newest"])
    assert granted(peer, site, budget, 60)
    assert counters(budget) == (0, 60, 0, 0)
    assert verify().holds
