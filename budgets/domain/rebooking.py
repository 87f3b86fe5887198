"""Balances while recorded calls are charged again: what each can bear, and what moves on it.

Locks are taken by id, rings follow the clock first, and a call moves on all of its balances or on
none. What a closed child session gives back, or owes, its parent does (L14).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from budgets.domain.charged import Place
from budgets.domain.charging import room_for
from budgets.domain.rings import RING_FIELDS, count, spent_at, take_back_at
from budgets.enums import DelegationState
from budgets.models import Balance, Delegation, Transfer
from enforcement.rules.ledger import TransferKind
from enforcement.rules.sessiontree import MAX_DEPTH


class Rebooking:
    """Balances as a run changes them: locked ones to be saved, or copies for a preview."""

    def __init__(self, *, now: datetime, locked: bool = False) -> None:
        self._now = now
        self._locked = locked
        self._rows: dict[UUID, Balance] = {}
        self._parents: dict[UUID, UUID] = {}  # of closed child sessions, by the child's balance
        self.aged: list[Transfer] = []
        self.touched: set[UUID] = set()

    def open(self, ids: Iterable[UUID], *, planned: Mapping[UUID, Balance]) -> None:
        """Get balances and their ancestors, in one global order, with rings turned to now.

        `planned`: balances that a booking would make.
        """
        self._rows |= {one: planned[one] for one in planned.keys() - self._rows.keys()}
        wanted, ancestors = set(ids) - self._rows.keys(), set(ids)
        for _ in range(MAX_DEPTH):
            ancestors = set(
                Delegation.objects.filter(child_id__in=ancestors).values_list(
                    "parent_id", flat=True
                )
            )
            wanted |= ancestors - self._rows.keys()
        rows = Balance.objects.filter(id__in=wanted).order_by("id")
        if self._locked:
            rows = rows.select_for_update(no_key=True)
        for row in rows:
            self._rows[row.id] = row
            if row.ring is not None:
                self._turned(row, count(row, at=self._now, now=self._now))
        self._parents |= dict(
            Delegation.objects.filter(
                child_id__in=wanted, state=DelegationState.CLOSED
            ).values_list("child_id", "parent_id")
        )

    def move(self, places: Sequence[Place], delta: int) -> dict[UUID, dict[str, int]] | None:
        """Move a difference on all balances of a call: amounts by kind. None: one cannot."""
        lineage = [place for one in places for place in self._with_parents(one)]
        counted = [
            (self._rows[place.balance_id], place.at)
            for place in dict.fromkeys(lineage)
            if spent_at(self._rows[place.balance_id], at=place.at) is not None
        ]
        if any((spent_at(row, at=at) or 0) < -delta for row, at in counted):
            return None
        return {row.id: self._moved(row, delta, at=at) for row, at in counted}

    def save(self) -> None:
        """Write what was moved. The balances are locked."""
        rows = [self._rows[one] for one in sorted(self.touched)]
        for row in rows:
            row.updated_at = self._now
        Balance.objects.bulk_update(rows, RING_FIELDS)
        Transfer.objects.bulk_create(self.aged)

    def _with_parents(self, place: Place) -> Iterator[Place]:
        yield place
        balance_id = place.balance_id
        while balance_id in self._parents:
            balance_id = self._parents[balance_id]
            yield place._replace(balance_id=balance_id)

    def _moved(self, row: Balance, delta: int, *, at: datetime) -> dict[str, int]:
        self.touched.add(row.id)
        if delta < 0:
            take_back_at(row, -delta, at=at)
            return {TransferKind.CORRECTION.value: -delta}
        fits = room_for(row, delta)
        over = delta - fits
        if row.ring is not None:
            self._turned(row, count(row, at=at, now=self._now, spent=fits, overrun=over))
        else:
            row.spent_amount += fits
            row.overrun_amount += over
        moved = {TransferKind.RECHARGE.value: fits, TransferKind.OVERRUN.value: over}
        return {kind: amount for kind, amount in moved.items() if amount}

    def _turned(self, row: Balance, aged: list[Transfer]) -> None:
        if aged:
            self.aged += aged
            self.touched.add(row.id)
