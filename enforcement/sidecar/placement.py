"""A call on its way to a hold: rates, size, place, ask, wait, clamp, or refuse.

The usual call passes through in one synchronous run: its rates fit, its lots have room. A call
that must wait for a rate, a token count or a grant does so with a timer, never with a task of
its own, and never beyond its deadline.
"""

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from enforcement.rules.estimate import (
    Bound,
    UnboundedError,
    affordable_output,
    amount_of,
    bound_of,
    default_output_limit,
    needs_of,
    within_grants,
)
from enforcement.rules.gcra import try_spend
from enforcement.rules.lots import BalanceKey, Hold, Need, Shortage
from enforcement.rules.policy import Unit
from enforcement.rules.verdicts import (
    Clamped,
    Cut,
    Refuse,
    is_hopeless,
    judge_denial,
    throttled,
    unpriced,
    unreachable,
)
from enforcement.rules.wire import Denial, UsageEvent
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call
from enforcement.sidecar.answers import refusal_of_cut, send_refusal
from enforcement.sidecar.bounds import unbounded_refusal
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.forwarded import STOP_MS
from enforcement.sidecar.front import ClientConnection
from enforcement.sidecar.policy import PolicyView
from enforcement.sidecar.queueing import Queueing
from enforcement.sidecar.relay import Relay
from enforcement.sidecar.settlement import first_event
from enforcement.sidecar.terms import Quote, remember

RETRY_S = 0.02
LEAST_TIME_MS = 1_000  # a call is not made for less engine time than this
_NS = 1_000_000_000
_NO_BOUND = Bound(0, 0)


class Placement(Queueing):
    """One call before it is forwarded."""

    # What the usual call, which waits for nothing, never changes.
    _prompt_tokens: int | None = None
    _limit = 0
    _rated = 0
    _quote: Quote | None = None
    _bound = _NO_BOUND
    _bounded = True
    _clamped: Clamped | None = None
    _group = ""
    _denial: Denial | None = None
    _counting: asyncio.Task[None] | None = None

    def __init__(self, desk: Desk, client: ClientConnection, call: Call, *, event_id: str) -> None:
        super().__init__(call)
        self._desk = desk
        self._client = client
        self._event_id = event_id
        self._started_ms = clock.now_ms()
        self._asked: dict[BalanceKey, int] = {}

    def start(self) -> None:
        """Run as far as possible without waiting."""
        if self._call.tried:
            self._size()  # another attempt of a call that has passed its rate
        else:
            self._pass_request_rate()
        if not self._done:
            self._client.running = self
            self._desk.live.add(self)

    # ------------------------------------------------------------------ rates and size

    def _pass_request_rate(self) -> None:
        agent, now_ns = self._call.agent, clock.now_ns()
        wait_ns = self._call.throttled(self._desk.view, now_ns=now_ns)
        if wait_ns:
            self._wait_for_rate(wait_ns, "requests_per_minute", self._pass_request_rate)
            return
        if agent.requests is not None:
            tat_ns = agent.rates.requests_tat_ns
            decision = try_spend(agent.requests, tat_ns=tat_ns, amount=1, now_ns=now_ns)
            if not decision.allowed:
                self._wait_for_rate(
                    decision.retry_in_ns, "requests_per_minute", self._pass_request_rate
                )
                return
            agent.rates.requests_tat_ns = decision.tat_ns
        self._size()

    def _wait_for_rate(self, retry_in_ns: int, what: str, then: Callable[[], None]) -> None:
        if clock.now_ns() + retry_in_ns > self._deadline():
            self._refuse(throttled(retry_in_ns=retry_in_ns, what=what))
            return
        self._later(retry_in_ns / _NS, then)

    def _size(self) -> None:
        call, parsed = self._call, self._call.parsed
        known = parsed.prompt_tokens
        self._prompt_tokens = call.prompt_tokens if known is None else known
        if (
            self._prompt_tokens is None
            and call.plan.prompt_sized
            and not parsed.unseen
            and call.upstream.counts_prompts
        ):
            self._counting = asyncio.get_running_loop().create_task(self._count())
            return
        self._bind()

    async def _count(self) -> None:
        call = self._call
        counted = await call.upstream.count_prompt(call.dialect, call.parsed)
        self._prompt_tokens = call.prompt_tokens = counted
        self._counting = None
        if not self._done:
            self._bind()

    def _bind(self) -> None:
        """Bound the request; the output limit that is written follows from it."""
        call = self._call
        size = call.size(self._prompt_tokens)
        quote = call.quotes.get(size)
        if quote is not None:
            self._quote, self._limit, self._bound = quote, quote.limit, quote.bound
        elif not self._bind_anew():
            return
        elif self._bounded:
            remember(call.quotes, size, self._quoted())
        self._pass_token_rate()

    def _bind_anew(self) -> bool:
        """Bound a request of a size that nobody had before; False: it was refused."""
        call, parsed = self._call, self._call.parsed
        window = call.upstream.context_window
        if call.dialect.generates:
            self._limit = default_output_limit(
                asked=parsed.output_limit,
                default=self._desk.config.default_max_output_tokens,
                prompt_tokens=self._prompt_tokens if parsed.prompts == 1 else None,
                context_window=window,
            )
        try:
            self._bound = self._bound_for(self._limit)
        except UnboundedError:
            if call.plan.prompt_sized:
                self._refuse(unbounded_refusal())
                return False
            self._bounded = False
            self._prompt_tokens = len(parsed.encoded) // parsed.sequences + 1  # a guess
            self._bound = self._bound_for(self._limit)
        return True

    def _bound_for(self, limit: int) -> Bound:
        call, config = self._call, self._desk.config
        parsed = call.parsed
        return bound_of(
            prompt_tokens=self._prompt_tokens,
            context_window=call.upstream.context_window,
            output_limit=limit,
            prompts=parsed.prompts,
            sequences=parsed.sequences,
            gpu_ms=(call.timeout_ms(config) + STOP_MS) * config.accelerators,
            tool_calls=call.most_tool_calls(config),
        )

    def _pass_token_rate(self) -> None:
        agent, now_ns = self._call.agent, clock.now_ns()
        if agent.tokens is not None:
            tat_ns = agent.rates.tokens_tat_ns
            amount = self._rated_tokens()
            decision = try_spend(agent.tokens, tat_ns=tat_ns, amount=amount, now_ns=now_ns)
            if not decision.allowed:
                wait_ns = decision.retry_in_ns
                self._wait_for_rate(wait_ns, "tokens_per_minute", self._pass_token_rate)
                return
            agent.rates.tokens_tat_ns = decision.tat_ns
            self._rated = amount
        self._take_slot()

    def _rated_tokens(self) -> int:
        """What counts against the token rate: a guess at the prompt, and all the output."""
        guess = min(self._bound.input_tokens, len(self._call.parsed.encoded))
        return guess + self._bound.output_tokens

    # ------------------------------------------------------------------ holding

    def _place(self, *, full: bool) -> None:
        """Hold on every balance at once, else ask for what is missing (`full`: for all)."""
        desk, now_ns = self._desk, clock.now_ns()
        quote = self._quoted()
        if not full:
            desk.book.note_demand(quote.needs, now_ns=now_ns)
        held = self._hold(quote, now_ns=now_ns)
        if held is not None:
            self._ask(quote.needs, held, full=full)

    def _hold(self, quote: Quote, *, now_ns: int) -> Shortage | None:
        """Hold what is quoted and go; else what is missing."""
        event = replace(
            quote.event,
            id=self._event_id,
            started_at_ms=self._started_ms,
            attempt=len(self._call.tried) + 1,
        )
        held = self._desk.book.lots.place(quote.needs, now_ns=now_ns, event=event)
        if isinstance(held, Shortage):
            return held
        self._go(held, event)
        return None

    def _quoted(self) -> Quote:
        """The quote for this call's size, by the budgets that it matches now."""
        quote = self._quote
        if quote is None or quote.balances is not self._call.balances:
            quote = self._quote = self._quote_for(self._bound, self._limit)
        return quote

    def _quote_for(self, bound: Bound, limit: int) -> Quote:
        call, first = self._call, self._first_slice()
        rated: dict[Unit, int] = {}
        needs = needs_of(
            call.plan.budgets,
            call.balances,
            bound,
            price=call.price,
            metered_output=first,
            rated=rated,
        )
        event = first_event(
            call,
            bound,
            output_tokens=bound.output_tokens if first is None else min(first, bound.output_tokens),
            whole_nanos=rated.get(Unit.USD),
        )
        return Quote(limit, bound, first, call.balances, tuple(needs), event)

    def _first_slice(self) -> int | None:
        """How much output metered budgets pay for at first; None: nothing is metered."""
        call, config = self._call, self._desk.config
        metered = call.plan.metered and call.extensible
        return config.metered_slice_tokens + call.margin_tokens if metered else None

    def _go(self, hold: Hold, event: UsageEvent) -> None:
        """The hold is placed: once it is on disk, forward."""
        desk = self._desk
        self._finish(forwarded=True)
        stale = not desk.book.policy_is_fresh(now_ns=clock.now_ns())  # it waited for too long
        if stale or not desk.commit():
            desk.book.lots.settle(hold, {}, now_ns=clock.now_ns())
            desk.commit()
            self._leave_node()
            self._answer(desk.ready(now_ns=clock.now_ns()) or unreachable())
            return
        relay = Relay(
            desk,
            self._client,
            self._call,
            bound=self._bound,
            bounded=self._bounded,
            hold=hold,
            event=event,
            output_limit=self._limit,
            covered=self._quoted().first,
            clamped=self._clamped,
            rated_tokens=self._rated,
        )
        relay.forward()

    # ------------------------------------------------------------------ asking

    def _ask(self, needs: Sequence[Need], shortage: Shortage, *, full: bool) -> None:
        self._deadline()
        self._arm_deadline()
        book = self._desk.book
        floors = self._floors()
        missing = {(need.budget, need.value): need.amount for need in shortage.missing}
        items = []
        self._asked = {}
        for need, floor in zip(needs, floors, strict=True):
            key = (need.budget, need.value)
            short = need.amount if full else missing.get(key, 0)
            if short:
                here = need.amount - short
                self._asked[key] = short
                items.append(
                    book.item(Need(need.budget, need.value, short), floor=max(floor - here, 1))
                )
        self._group = clock.new_id()
        self._desk.waiting[self._group] = self
        book.ask(self._group, self._call.attribution(), items)
        self._desk.ask_now()

    def _floors(self) -> list[int]:
        """The least amount of each balance with which the call is still worth making."""
        return [need.amount for need in self._quote_for(self._floor_bound(), self._limit).needs]

    def _floor_bound(self) -> Bound:
        floor = min(self._desk.config.floor_output_tokens, self._limit)
        least_gpu_ms = (LEAST_TIME_MS + STOP_MS) * self._desk.config.accelerators
        return replace(
            self._bound_for(floor),
            gpu_ms=min(self._bound.gpu_ms, least_gpu_ms),
            tool_calls=min(self._bound.tool_calls, 1),
        )

    def on_granted(self, granted: dict[BalanceKey, int]) -> None:
        """The group was granted, whole: so much of each balance."""
        self._group = ""
        if self._done:
            return
        quote = self._quoted()
        short = self._hold(quote, now_ns=clock.now_ns())
        if short is not None and not self._clamp(granted):
            self._ask(quote.needs, short, full=True)

    def _clamp(self, granted: dict[BalanceKey, int]) -> bool:
        """Take less output where the ledger itself gave less than was asked for (L8)."""
        desk, call, now_ns = self._desk, self._call, clock.now_ns()
        tight = [
            budget
            for budget, key in zip(call.plan.budgets, call.balances, strict=True)
            if granted.get(key, 0) < self._asked.get(key, 0)
        ]
        if not tight:
            return False
        lots = desk.book.lots
        free = {key: lots.free_of(key, now_ns=now_ns) for key in call.balances}
        parsed = call.parsed
        within = within_grants(call.plan.budgets, call.balances, self._bound, granted=free)
        total = affordable_output(
            call.plan.budgets, call.balances, within, price=call.price, granted=free
        )
        limit = total // (parsed.prompts * parsed.sequences)
        if limit < min(desk.config.floor_output_tokens, self._limit):
            return False
        bound = self._bound_for(limit)
        bound = replace(bound, gpu_ms=within.gpu_ms, tool_calls=within.tool_calls)
        before = self._bound, self._limit, self._quote
        self._bound, self._limit, self._quote = bound, limit, self._quote_for(bound, limit)
        self._clamped = Clamped(limit, tight[0])
        if self._hold(self._quoted(), now_ns=now_ns) is not None:
            (self._bound, self._limit, self._quote), self._clamped = before, None
            return False
        return True

    def on_denied(self, denial: Denial) -> None:
        """The group got nothing."""
        self._group = ""
        self._denial = denial
        if self._done:
            return
        if self._overflows(denial):
            self._retry()
        elif is_hopeless(denial, floor=self._floor_of(denial)):
            self._refuse_denied()
        else:
            asyncio.get_running_loop().call_later(RETRY_S, self._retry)

    def _overflows(self, denial: Denial) -> bool:
        """Whether the split is full and shares one balance: then that one is the call's."""
        view = self._desk.view
        if view is not None and view.overflows(denial, now_ns=clock.now_ns()):
            self._call.match(view)
            return True
        return False

    def on_released(self) -> bool:
        """There is more to hold here: it may be enough."""
        if not self._done and self._group:
            self._try_again()
        return self._done

    def _retry(self) -> None:
        if not self._done and not self._group:
            self._place(full=True)

    def _try_again(self) -> None:
        self._hold(self._quoted(), now_ns=clock.now_ns())

    def _floor_of(self, denial: Denial) -> int:
        call = self._call
        for budget, key in zip(call.plan.budgets, call.balances, strict=True):
            if key == (denial.budget, denial.value):
                bound = self._floor_bound()
                return amount_of(
                    budget.unit, bound, output_tokens=bound.output_tokens, price=call.price
                )
        return 1

    # ------------------------------------------------------------------ waiting and ending

    def _deadline(self) -> int:
        if not self._deadline_ns:
            self._deadline_ns = clock.now_ns() + int(self._desk.config.grant_timeout * _NS)
        return self._deadline_ns

    def _arm_deadline(self) -> None:
        if self._timer is None:
            left_ns = max(self._deadline() - clock.now_ns(), 0)
            self._later(left_ns / _NS, self._refuse_denied)

    def _refuse_denied(self) -> None:
        denial = self._denial
        if denial is None:
            self._refuse(unreachable())
            return
        view = self._desk.view
        budget = view.budgets.get(denial.budget) if view else None
        self._refuse(judge_denial(denial, budget, floor=self._floor_of(denial)))

    def _refuse(self, refusal: Refuse) -> None:
        self._call.agent.refund_tokens(self._rated)
        self._finish()
        self._answer(refusal)

    def _answer(self, refusal: Refuse) -> None:
        call = self._call
        if call.judging_ns:
            call.agent.rates.refused_large(call.judging_ns, now_ns=clock.now_ns())
        self._desk.refuse(call, refusal, request_id=self._event_id, started_ms=self._started_ms)
        send_refusal(self._client, refusal, request_id=self._event_id, dialect=call.dialect)

    def _finish(self, *, forwarded: bool = False) -> None:
        self._done = True
        self._desk.live.discard(self)
        self._client.running = None
        self._stop_waiting()
        if not forwarded:
            self._leave_node()
        if self._counting is not None:
            self._counting.cancel()
        self._drop_group()

    def _drop_group(self) -> None:
        if self._group:
            self._desk.waiting.pop(self._group, None)
            self._desk.book.abandon(self._group)
            self._group = ""

    # ------------------------------------------------------------------ Running, Live

    def client_gone(self) -> None:
        """Nobody waits: nothing was forwarded, nothing is owed."""
        if not self._done:
            self._call.agent.refund_tokens(self._rated)
            self._finish()

    def cut(self, cut: Cut) -> None:
        """An order stops the call before it began."""
        if not self._done:
            self._refuse(refusal_of_cut(cut))

    def adopt(self, view: PolicyView) -> None:
        """Nothing is held yet: the later policy decides what must be."""
        call, before = self._call, self._call.plan.budgets
        call.follow(view)
        stopped = view.measures.refusal(call.measures)
        if stopped is not None and not call.hands_back:
            self._refuse(stopped)
        elif Unit.USD in call.plan.units and call.price is None:
            self._refuse(unpriced(call.parsed.model))
        elif call.plan.prompt_sized and not self._bounded:
            self._refuse(unbounded_refusal())
        elif self._group and call.plan.budgets != before:
            self._drop_group()
            self._denial = None
            call.agent.refund_tokens(self._rated)
            self._rated = 0
            self._size()

    @property
    def agent_id(self) -> str:
        return self._call.agent.policy.id

    @property
    def finished(self) -> bool:
        return self._done
