"""The hold of a running call: extended while a metered stream flows, settled once.

What a call holds on stays as it was when it was held, whatever later policies say. Budgets that
a later policy adds are held beside it (L12).

A metered hold covers what was produced, and a margin beyond it for what the engine makes before
it stops. More is asked for before the margin is touched; when it is touched and nothing came,
the stream is cut.
"""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from enforcement.rules.estimate import Bound, Used, extension_of, needs_of, used_of
from enforcement.rules.lots import BalanceKey, Hold, Need, Shortage
from enforcement.rules.money import TokenUsage
from enforcement.rules.policy import PROMPT_UNITS, BudgetPolicy, HoldMode, Unit
from enforcement.rules.verdicts import Cut, is_hopeless
from enforcement.rules.wire import Denial, UsageEvent
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.settlement import Reckoning, believable, presume


class Holding:
    """What one running call holds. `covered`: output tokens that metered budgets pay for."""

    _group = ""
    _denial: Denial | None = None
    frozen = False  # it is not extended any more

    def __init__(
        self,
        desk: Desk,
        call: Call,
        *,
        bound: Bound,
        bounded: bool,
        hold: Hold,
        event: UsageEvent,
        covered: int | None,
        again: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._call = call
        self.bound = bound
        self.bounded = bounded  # else the size of the prompt is only guessed
        self.budgets = call.plan.budgets
        self.balances = call.balances
        self._sliced = covered is not None  # a budget is metered
        self._again = again
        self.hold = hold
        self.event = event
        self.covered = bound.output_tokens
        if covered is not None:
            self.covered = min(covered, bound.output_tokens)

    def check(self, produced: int) -> Cut | None:
        """Extend in time. A cut: nothing more is to be had, and the margin is reached."""
        if self.covered >= self.bound.output_tokens:
            return None
        margin = self._call.margin_tokens
        if self.frozen:
            left = self.covered - produced >= margin
            return None if left else self._exhausted(None)
        low = margin + self._desk.config.metered_slice_tokens // 2
        if self.covered - produced > low:
            return None
        shortage = self._extend(produced)
        if self.covered - produced >= margin:
            return None
        return None if self.covered >= self.bound.output_tokens else self._exhausted(shortage)

    def _extend(self, produced: int) -> Shortage | None:
        desk, call, config = self._desk, self._call, self._desk.config
        wanted = produced + call.margin_tokens + config.metered_slice_tokens
        more = min(
            max(wanted - self.covered, config.metered_slice_tokens),
            self.bound.output_tokens - self.covered,
        )
        now_ns = clock.now_ns()
        needs = extension_of(
            self.budgets,
            self.balances,
            self.bound,
            price=call.price,
            covered_output=self.covered,
            more_output=more,
        )
        covered = self.covered + more
        event = self._presumed_event(covered)
        desk.book.note_demand(needs, now_ns=now_ns)
        shortage = desk.book.lots.extend(self.hold, needs, now_ns=now_ns, event=event)
        if shortage is not None:
            self._ask(shortage)
        elif desk.commit():
            self.covered, self.event = covered, event
        return shortage

    def _presumed_event(self, covered: int) -> UsageEvent:
        """What to book if nothing else is heard of the call."""
        owed = presume(self._call, self.bound, output_tokens=covered)
        return replace(
            self.event,
            input_tokens=owed.usage.input_tokens,
            output_tokens=covered,
            charge_nanos=owed.charge_nanos,
        )

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

    # ------------------------------------------------------------------ younger budgets

    @property
    def sized(self) -> bool:
        """Whether what is held depends on how long the prompt is."""
        return any(budget.unit in PROMPT_UNITS for budget in self.budgets)

    @property
    def vague(self) -> bool:
        """Whether the prompt was never counted, because nothing that is held depends on it."""
        return not self.sized and not (self.bounded and self.bound.window_tokens is None)

    def sharpen(self, input_tokens: int) -> None:
        """Take the engine's own count of the prompt for a bound while none is relied on."""
        usage = TokenUsage(input_tokens=input_tokens)
        if self.vague and input_tokens and believable(usage, self.bound):
            self.bound = replace(self.bound, input_tokens=input_tokens, window_tokens=None)
            self.bounded = True

    def needs_for(self, younger: Mapping[BalanceKey, BudgetPolicy], *, produced: int) -> list[Need]:
        """What these budgets would have to hold if the call began now."""
        first = self._covered_with(younger, produced)
        return needs_of(
            tuple(younger.values()),
            tuple(younger),
            self.bound,
            price=self._call.price,
            metered_output=first if self._call.extensible else None,
        )

    def adopt(
        self, younger: Mapping[BalanceKey, BudgetPolicy], *, produced: int
    ) -> Shortage | None:
        """Hold on these budgets too: all or nothing."""
        needs = self.needs_for(younger, produced=produced)
        covered = self._covered_with(younger, produced)
        event = self._presumed_event(covered)
        shortage = self._desk.book.lots.extend(self.hold, needs, now_ns=clock.now_ns(), event=event)
        if shortage is None:
            self._desk.commit()
            self._sliced = self._sliced or self._meters(younger)
            self.covered, self.event = covered, event
            self.budgets += tuple(younger.values())
            self.balances += tuple(younger)
        return shortage

    def _covered_with(self, younger: Mapping[BalanceKey, BudgetPolicy], produced: int) -> int:
        """The output that metered budgets pay for, once these are among them."""
        if self._sliced or not self._meters(younger):
            return self.covered
        slice_tokens = self._desk.config.metered_slice_tokens
        first = produced + self._call.margin_tokens + slice_tokens
        return min(first, self.bound.output_tokens)

    def _meters(self, younger: Mapping[BalanceKey, BudgetPolicy]) -> bool:
        metered = any(budget.hold_mode is HoldMode.METERED for budget in younger.values())
        return metered and self._call.extensible

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
        if owed.presumed:
            used = {
                key: 0 if budget.unit is Unit.CONCURRENCY else self.hold.amount(key)
                for budget, key in zip(self.budgets, self.balances, strict=True)
            }
        else:
            beside = Used(owed.charge_nanos, requests, event.gpu_ms, event.tool_calls)
            used = used_of(self.budgets, self.balances, owed.usage, beside)
        self._desk.book.lots.settle(self.hold, used, now_ns=now_ns, event=event)
        self._again = _nothing  # else call and holding keep each other until the collector comes
        self._desk.commit_soon()


def _nothing() -> None:
    """What is done again for a call that has ended."""
