"""A repeat that comes while its receipt is being forgotten."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
from django.db import transaction

from budgets.domain.archive import archive_day
from budgets.domain.receipts import KEPT, forget_receipts, maybe_forgotten
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import Booked, book_usage
from budgets.models import UsageEvent, UsageReceipt
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.domain.ingest import take_usage
from enforcement.rules.wire import EncodedUsage, Header
from tests.budgets.domain.test_receipts import DAY, HOUR, LATER, NOON, event
from tests.budgets.world import ACTOR, World
from tests.races.crowd import apart, at_once

ROUNDS = 400


def test_a_repeat_that_meets_its_forgetting_is_never_booked(world: World, tmp_path: Path) -> None:
    sidecar = enrol_sidecar(organization_id=world.id, name="s", actor=ACTOR, now=NOON).sidecar
    events = [event(world, number=n) for n in range(ROUNDS)]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOON)
    fold_usage(now=NOON + HOUR)
    archive_day(DAY, folder=tmp_path, now=NOON + timedelta(days=60))
    forget_receipts(now=LATER)
    header = Header(organization=str(world.id), spool=str(UUID(int=1)))
    raw = [msgspec.Raw(msgspec.json.encode(one)) for one in events]

    def repeat() -> Booked:
        usage = EncodedUsage(header=header, events=raw)
        return take_usage(sidecar=sidecar, usage=usage, now=LATER + HOUR)

    def forget() -> Booked:
        return Booked(0, forget_receipts(now=LATER + HOUR))

    done = at_once([repeat, forget, repeat])
    assert [done[0].accepted, done[2].accepted] == [0, 0]
    assert done[1].duplicates == UsageReceipt.objects.count() + ROUNDS == ROUNDS
    assert UsageEvent.objects.count() == 0


def test_a_receipt_that_a_booking_has_seen_is_not_deleted_under_it(
    world: World, tmp_path: Path
) -> None:
    one = event(world)
    book_usage(organization_id=world.id, sidecar_id=None, events=[one], now=NOON)
    fold_usage(now=NOON + HOUR)
    archive_day(DAY, folder=tmp_path, now=NOON + timedelta(days=60))
    forget_receipts(now=LATER)
    with transaction.atomic():
        assert maybe_forgotten([one.id], now=LATER + HOUR) == set()
        forgotten = apart(lambda: forget_receipts(now=LATER + HOUR))
        again = book_usage(organization_id=world.id, sidecar_id=None, events=[one], now=NOON + KEPT)
        assert (again.accepted, again.duplicates) == (0, 1)
    assert forgotten() == 1
