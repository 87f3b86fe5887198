"""The hold of a running call: extended while a metered stream flows, settled once.

A metered hold covers what was produced, and a margin beyond it for what the engine makes before
it stops. More is asked for before the margin is touched; when it is touched and nothing came,
the stream is cut.
"""

from collections.abc import Callable

from msgspec.structs import replace

from enforcement.rules.estimate import Bound, extension_of, used_of
from enforcement.rules.lots import BalanceKey, Hold, Shortage
from enforcement.rules.verdicts import Cut, is_hopeless
from enforcement.rules.wire import Denial, UsageEvent
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.settlement import Reckoning, presume


class Holding:
    """What one running call holds. `covered`: output tokens that metered budgets pay for."""

    __slots__ = (
        "_again",
        "_bound",
        "_call",
        "_denial",
        "_desk",
        "_group",
        "covered",
        "event",
        "hold",
    )

    def __init__(
        self,
        desk: Desk,
        call: Call,
        *,
        bound: Bound,
        hold: Hold,
        event: UsageEvent,
        covered: int | None,
        again: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._call = call
        self._bound = bound
        self._again = again
        self._group = ""
        self._denial: Denial | None = None
        self.hold = hold
        self.event = event
        self.covered = bound.output_tokens if covered is None else covered

    def check(self, produced: int) -> Cut | None:
        """Extend in time. A cut: nothing more is to be had, and the margin is reached."""
        if self.covered >= self._bound.output_tokens:
            return None
        config = self._desk.config
        low = config.metered_margin_tokens + config.metered_slice_tokens // 2
        if self.covered - produced > low:
            return None
        shortage = self._extend(produced)
        if self.covered - produced >= config.metered_margin_tokens:
            return None
        return None if self.covered >= self._bound.output_tokens else self._exhausted(shortage)

    def _extend(self, produced: int) -> Shortage | None:
        desk, call, config = self._desk, self._call, self._desk.config
        wanted = produced + config.metered_margin_tokens + config.metered_slice_tokens
        more = min(
            max(wanted - self.covered, config.metered_slice_tokens),
            self._bound.output_tokens - self.covered,
        )
        now_ns = clock.now_ns()
        needs = extension_of(
            call.agent.budgets,
            call.balances,
            self._bound,
            price=call.price,
            covered_output=self.covered,
            more_output=more,
        )
        covered = self.covered + more
        charge = presume(call, self._bound, output_tokens=covered).charge_nanos
        event = replace(self.event, output_tokens=covered, charge_nanos=charge)
        desk.book.note_demand(needs, now_ns=now_ns)
        shortage = desk.book.lots.extend(self.hold, needs, now_ns=now_ns, event=event)
        if shortage is not None:
            self._ask(shortage)
        elif desk.commit():
            self.covered, self.event = covered, event
        return shortage

    def _ask(self, shortage: Shortage) -> None:
        if self._group or (self._denial is not None and is_hopeless(self._denial, floor=1)):
            return
        book = self._desk.book
        items = [book.item(need, floor=need.amount) for need in shortage.missing]
        self._group = clock.new_id()
        self._desk.waiting[self._group] = self
        book.ask(self._group, self._call.attribution(), items)
        self._desk.ask_now()

    def _exhausted(self, shortage: Shortage | None) -> Cut:
        view = self._desk.view
        missing = shortage.missing[0].budget if shortage is not None else ""
        budget = view.budgets.get(missing) if view is not None else None
        name = repr(budget.name) if budget is not None else "of this agent"
        return Cut("budget_exhausted", f"Budget {name} is exhausted", budget=budget)

    # ------------------------------------------------------------------ Waiter

    def on_granted(self, granted: dict[BalanceKey, int]) -> None:  # noqa: ARG002 -- Waiter
        """More was leased for this call."""
        self._group = ""
        self._denial = None
        self._again()

    def on_denied(self, denial: Denial) -> None:
        """Nothing more: the stream goes on until its margin is reached."""
        self._group = ""
        self._denial = denial

    def on_released(self) -> bool:
        """There is more to hold here."""
        self._again()
        return True

    def forget(self) -> None:
        """Ask for nothing more."""
        if self._group:
            self._desk.waiting.pop(self._group, None)
            self._desk.book.abandon(self._group)
            self._group = ""

    # ------------------------------------------------------------------ the end

    def settle(self, owed: Reckoning, event: UsageEvent, *, requests: int, now_ns: int) -> None:
        """Debit what is owed, free the rest, and write both with the event."""
        call = self._call
        if owed.presumed:
            used = {key: self.hold.amount(key) for key in call.balances}
        else:
            used = used_of(
                call.agent.budgets,
                call.balances,
                owed.usage,
                charge_nanos=owed.charge_nanos,
                requests=requests,
            )
        self._desk.book.lots.settle(self.hold, used, now_ns=now_ns, event=event)
        self._desk.commit()
