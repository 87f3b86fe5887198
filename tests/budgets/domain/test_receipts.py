"""Receipts are forgotten when no repeat can be booked without them."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid5

import msgspec
import pytest

from budgets.domain.archive import archive_day
from budgets.domain.receipts import KEPT, MARK, SETTLED, forget_receipts, maybe_forgotten
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from budgets.models import RejectedEvent, RollupWatermark, UsageEvent, UsageReceipt
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.domain.ingest import TOO_OLD, take_usage
from enforcement.models import Sidecar
from enforcement.rules.ids import uuid7_text
from enforcement.rules.wire import EncodedUsage, Header
from enforcement.rules.wire import UsageEvent as WireEvent
from tests.budgets.world import ACTOR, World, call, ms

DAY = date(2031, 5, 6)
NOON = datetime(2031, 5, 6, 12, 0, tzinfo=UTC)
LATER = NOON + KEPT + timedelta(days=2)
HOUR = timedelta(hours=1)


def event(world: World, at: datetime = NOON, number: int = 0) -> WireEvent:
    name = uuid7_text(now_ms=ms(at), random_bytes=number.to_bytes(10, "big"))
    return call(world, id=name, started_at_ms=ms(at))


@pytest.fixture
def sidecar(world: World) -> Sidecar:
    return enrol_sidecar(organization_id=world.id, name="s", actor=ACTOR, now=NOON).sidecar


def tell(sidecar: Sidecar, *events: WireEvent, now: datetime) -> tuple[int, int, int]:
    """(booked, duplicates, kept aside) of a batch of a sidecar."""
    header = Header(organization=str(sidecar.organization_id), spool=str(UUID(int=1)))
    raw = [msgspec.Raw(msgspec.json.encode(one)) for one in events]
    done = take_usage(sidecar=sidecar, usage=EncodedUsage(header=header, events=raw), now=now)
    return done.accepted, done.duplicates, done.rejected


@pytest.fixture
def archived(world: World, tmp_path: Path) -> WireEvent:
    """An event whose day is in an archive."""
    booked = event(world)
    others = [uuid5(UUID(int=7), "reported"), UUID(event(world, number=1).id)]
    events = [booked, *(msgspec.structs.replace(booked, id=str(one)) for one in others)]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOON)
    fold_usage(now=NOON + HOUR)
    archive_day(DAY, folder=tmp_path, now=NOON + timedelta(days=60))
    return booked


def forget_until(now: datetime) -> int:
    forget_receipts(now=now)
    return forget_receipts(now=now + HOUR)


def test_a_forgotten_event_is_never_booked_again(archived: WireEvent, sidecar: Sidecar) -> None:
    assert tell(sidecar, archived, now=LATER) == (0, 1, 0)
    assert forget_until(LATER) == 2
    assert tell(sidecar, archived, now=LATER + 2 * HOUR) == (0, 0, 1)
    assert UsageEvent.objects.count() == 0
    aside = RejectedEvent.objects.get()
    assert (aside.reason, archived.id in aside.document) == (TOO_OLD, True)
    assert tell(sidecar, archived, now=LATER + 3 * HOUR) == (0, 0, 1)
    assert RejectedEvent.objects.count() == 1


def test_ids_that_tell_no_time_keep_their_receipts(archived: WireEvent) -> None:
    forget_until(LATER)
    assert [row.id.version for row in UsageReceipt.objects.all()] == [5]


def test_what_came_after_the_mark_is_booked_as_ever(
    world: World, archived: WireEvent, sidecar: Sidecar
) -> None:
    forget_until(LATER)
    late = event(world, at=LATER + HOUR - KEPT + timedelta(minutes=1))
    never_set = event(world, at=datetime(1970, 1, 2, tzinfo=UTC))
    now = LATER + 2 * HOUR
    assert tell(sidecar, late, never_set, event(world, at=now), now=now) == (3, 0, 0)
    assert tell(sidecar, late, never_set, now=now) == (0, 2, 0)


def test_other_spellings_of_an_id_are_the_same_id(archived: WireEvent) -> None:
    forget_until(LATER)
    plain = archived.id
    spelt = [plain, plain.upper(), plain.replace("-", ""), f"{{{plain}}}", f"urn:uuid:{plain}"]
    assert maybe_forgotten(spelt, now=LATER + HOUR) == set(spelt)
    assert maybe_forgotten([str(UUID(int=7)), "f" * 32], now=LATER + HOUR) == set()


def test_receipts_of_days_in_the_table_stay(world: World, archived: WireEvent) -> None:
    stays = event(world, at=NOON + timedelta(days=1))
    book_usage(
        organization_id=world.id, sidecar_id=None, events=[stays], now=NOON + timedelta(days=1)
    )
    forget_until(LATER)
    assert UsageReceipt.objects.filter(id=stays.id).exists()


def test_nothing_is_forgotten_or_doubted_without_archives(world: World, sidecar: Sidecar) -> None:
    assert tell(sidecar, event(world), now=NOON) == (1, 0, 0)
    assert forget_until(LATER) == 0
    assert not RollupWatermark.objects.filter(name=MARK).exists()
    assert tell(sidecar, event(world, number=1), now=LATER + HOUR) == (1, 0, 0)


def test_the_mark_is_known_before_anything_is_deleted(archived: WireEvent) -> None:
    assert forget_receipts(now=LATER) == 0
    assert forget_receipts(now=LATER + SETTLED - timedelta(seconds=1)) == 0
    assert UsageReceipt.objects.count() == 3
    assert maybe_forgotten([archived.id], now=LATER) == set()  # its receipt is there


def test_a_clock_that_is_set_back_does_not_move_the_mark_back(archived: WireEvent) -> None:
    forget_until(LATER)
    before = RollupWatermark.objects.get(name=MARK).received_at
    forget_receipts(now=LATER - timedelta(days=1))
    assert RollupWatermark.objects.get(name=MARK).received_at == before
