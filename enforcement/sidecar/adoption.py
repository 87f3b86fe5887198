"""Budgets that are younger than a running call: it tries to hold on them, else it ends (L12).

1. What is held is what the call would hold if it began now, its prompt and past output included.
   Its settlement then pays all of its use from leases, its event names the budget, and nothing is
   booked twice.
2. All younger budgets are held at once, or none. What is never held is booked from the event.
3. A stream is cut at once when waiting cannot help, at the end of the grant timeout when it did
   not, and when the policy lease runs out if no answer comes: until then the budget is not armed.
   A whole answer goes on: it is as good as made.
"""

import asyncio
from collections.abc import Callable

from enforcement.rules.lots import BalanceKey, Shortage
from enforcement.rules.policy import PROMPT_UNITS, BudgetPolicy, Unit
from enforcement.rules.verdicts import Cut, is_hopeless, judge_denial, unpriced
from enforcement.rules.wire import Denial
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call
from enforcement.sidecar.bounds import unbounded_refusal
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.holding import Holding

RETRY_S = 0.02

Younger = dict[BalanceKey, BudgetPolicy]


class Adoption:
    """The younger budgets of one running call, until they are held or it ends."""

    __slots__ = (
        "_call",
        "_counting",
        "_cut",
        "_denial",
        "_desk",
        "_group",
        "_holding",
        "_produced",
        "_timer",
        "_wanted",
    )

    def __init__(
        self,
        desk: Desk,
        call: Call,
        holding: Holding,
        *,
        produced: Callable[[], int],
        cut: Callable[[Cut], None],
    ) -> None:
        self._desk = desk
        self._call = call
        self._holding = holding
        self._produced = produced
        self._cut = cut
        self._wanted: Younger = {}
        self._group = ""
        self._denial: Denial | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._counting: asyncio.Task[None] | None = None

    def seek(self, wanted: Younger) -> None:
        """Hold on these, and on no others that were sought before."""
        if wanted == self._wanted:
            return
        self._drop_group()
        self._wanted, self._denial = wanted, None
        if not wanted:
            self.forget()
            return
        if self._timer is None:
            self._arm()
        if self._must_count():
            self._counting = asyncio.get_running_loop().create_task(self._count())
        elif self._counting is None:
            self._begin()

    def _must_count(self) -> bool:
        """Whether the size of the prompt matters now, for the first time, and can be had."""
        sized = any(budget.unit in PROMPT_UNITS for budget in self._wanted.values())
        call = self._call
        countable = call.upstream.counts_prompts and not call.parsed.unseen
        return sized and countable and self._holding.vague and self._counting is None

    async def _count(self) -> None:
        parsed = self._call.parsed
        tokens = await self._call.upstream.count_prompt(self._call.dialect, parsed)
        self._counting = None
        if tokens is not None:
            self._holding.sharpen(tokens * parsed.sequences)
        if self._wanted:
            self._begin()

    def _begin(self) -> None:
        impossible = self._impossible()
        if impossible is not None:
            self._end(impossible)
            return
        needs = self._holding.needs_for(self._wanted, produced=self._produced())
        self._desk.book.note_demand(needs, now_ns=clock.now_ns())
        self._try()

    def _try(self) -> None:
        if not self._wanted:
            return
        shortage = self._holding.adopt(self._wanted, produced=self._produced())
        if shortage is None:
            self.forget()
        elif not self._group:
            self._ask(shortage)

    def _ask(self, shortage: Shortage) -> None:
        book = self._desk.book
        self._group = clock.new_id()
        self._desk.waiting[self._group] = self
        items = [book.item(need, floor=need.amount) for need in shortage.missing]
        book.ask(self._group, self._call.attribution(), items)
        self._desk.ask_now()

    def _floor_of(self, denial: Denial) -> int:
        needs = self._holding.needs_for(self._wanted, produced=self._produced())
        found = (n.amount for n in needs if (n.budget, n.value) == (denial.budget, denial.value))
        return next(found, 1)

    def _give_up(self) -> None:
        """The budget's action: no answer can be made smaller that an engine is making already."""
        denial = self._denial
        if denial is None:
            budget = next(iter(self._wanted.values()))
            cut = Cut("no_lease", f"Budget {budget.name} could not be held in time", budget=budget)
        else:
            refusal = judge_denial(
                denial,
                self._wanted.get((denial.budget, denial.value)),
                floor=self._floor_of(denial),
            )
            cut = Cut(refusal.reason, refusal.message, budget=refusal.budget)
        self._end(cut)

    def _impossible(self) -> Cut | None:
        """No grant could help: a new call would be refused for the same."""
        for budget in self._wanted.values():
            refusal = None
            if budget.unit is Unit.USD and self._call.price is None:
                refusal = unpriced(self._call.parsed.model)
            elif budget.unit in PROMPT_UNITS and not self._holding.bounded:
                refusal = unbounded_refusal()
            if refusal is not None:
                return Cut(refusal.reason, refusal.message, budget=budget)
        return None

    def _end(self, cut: Cut) -> None:
        self.forget()
        if self._call.parsed.stream:
            self._cut(cut)

    # ------------------------------------------------------------------ Waiter

    def on_granted(self, granted: dict[BalanceKey, int]) -> None:  # noqa: ARG002 -- Waiter
        """What was missing has come, if nobody was faster."""
        self._group = ""
        self._try()

    def on_denied(self, denial: Denial) -> None:
        """Nothing is to be had now, or ever."""
        self._group = ""
        self._denial = denial
        if is_hopeless(denial, floor=self._floor_of(denial)):
            self._give_up()
        else:
            asyncio.get_running_loop().call_later(RETRY_S, self._retry)

    def on_released(self) -> bool:
        """There is more to hold here."""
        self._try()
        return True

    def _retry(self) -> None:
        if self._wanted and not self._group:
            self._try()

    # ------------------------------------------------------------------ ending

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._desk.config.grant_timeout, self._time_is_up)

    def _time_is_up(self) -> None:
        if self._denial is None and self._desk.book.policy_is_fresh(now_ns=clock.now_ns()):
            self._arm()
        else:
            self._give_up()

    def _drop_group(self) -> None:
        if self._group:
            self._desk.waiting.pop(self._group, None)
            self._desk.book.abandon(self._group)
            self._group = ""

    def forget(self) -> None:
        """Seek nothing more."""
        self._drop_group()
        self._wanted = {}
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
