"""Session trees of the simulated control plane: rows of parts, over the production rules (L14)."""

from collections.abc import Callable

from msgspec import Struct

from enforcement.rules.delegation import Delegation, DelegationState, bring_home, end, give
from enforcement.rules.ledger import Balance, Ledger, Transfer
from enforcement.rules.sessiontree import MAX_DEPTH, Level, Lineage, is_given, seal, session_of
from enforcement.rules.wire import Attribution
from enforcement.simulation.organization import DELEGABLE, root_of

LONG_AGO_MS = -(10**12)  # before any clock, however often it stepped back


class Row(Struct):
    """One delegation. `expires_at_ms` is on the ledger's clock."""

    handle: str
    part: Delegation
    root: str
    expires_at_ms: int


class Trees:
    """Gives parts of sessions to children, and brings them home."""

    def __init__(self, *, key: bytes, find: Callable[[str], Balance]) -> None:
        self.rows: list[Row] = []
        self._key = key
        self._find = find

    def delegate(
        self,
        ledger: Ledger,
        facts: Attribution,
        child_session: str,
        *,
        lineage: Lineage | None,
        percent: int,
        expires_at_ms: int,
    ) -> str | None:
        """The child's token; None if there is nothing to give."""
        depth = (lineage.depth if lineage else 0) + 1
        value = session_of(lineage, DELEGABLE) if lineage else facts.session
        parent_id, place = f"{DELEGABLE}/{value}/0", f"{DELEGABLE}/{child_session}/0"
        if depth > MAX_DEPTH or place in ledger.balances:
            return None
        if lineage and is_given(lineage, value) and parent_id not in ledger.balances:
            return None  # a failover forgot its part: no new money by an old token
        parent = self._find(value)
        amount = max(0, parent.free) * percent // 100
        moved = self._give(parent, amount)
        if moved is None:
            return None
        ledger.transfers.append(moved)
        ledger.touched_balances |= {parent.id, place}
        ledger.balances[place] = Balance(place, DELEGABLE, child_session, 0, amount, amount)
        handle = f"part-{len(self.rows)}"
        part = Delegation(parent.id, place, amount)
        self.rows.append(Row(handle, part, root_of(child_session), expires_at_ms))
        above = lineage.levels if lineage else [Level(facts.session, facts.agent, [])]
        level = Level(child_session, facts.agent, [DELEGABLE])
        return seal(Lineage(handle, [level, *above]), key=self._key)

    def _give(self, parent: Balance, amount: int) -> Transfer | None:
        return give(parent, amount)

    def sweep(self, ledger: Ledger, *, now_ms: int, learning: bool) -> list[str]:
        """End what is over, with all below it. The balances whose leases should come home."""
        closing = []
        for row in self.open:
            part, child = row.part, ledger.balances[row.part.child]
            if now_ms >= row.expires_at_ms:
                end(part, child)
                for below in self.rows:
                    if below.part.parent == part.child:
                        below.expires_at_ms = now_ms
            if part.state is DelegationState.CLOSING:
                closing.append(part.child)
                ledger.touched_balances |= {part.parent, part.child}
                if not learning:
                    parent = ledger.balances[part.parent]
                    ledger.transfers += self._bring_home(part, parent, child)
        return closing

    def _bring_home(self, part: Delegation, parent: Balance, child: Balance) -> list[Transfer]:
        return bring_home(part, parent, child)

    @property
    def open(self) -> list[Row]:
        return [row for row in self.rows if row.part.state is not DelegationState.CLOSED]

    def end_all(self) -> None:
        for row in self.rows:
            row.expires_at_ms = LONG_AGO_MS
