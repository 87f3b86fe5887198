"""Replay recorded calls against proposed budgets: what would have been refused, cut, throttled.

The rules of the replay:

1. Calls are taken in the order of their start. A call holds and pays at its start what it used;
   how long it ran plays no part, so overlapping holds are not replayed.
2. Hard budgets are all or nothing, as in production: a call pays on every one that it matches, or
   on none. Windows, splits, matching and prices are those of the sidecar.
3. A call that does not fit is `throttled` when the fullest budget's window ends within the
   patience: it comes back when that window opens. Else it is `cut` to the output that still
   fits, if that is at least the floor; else it is `refused` and costs nothing.
4. Soft and observe budgets stop nothing: they count what was paid, and the calls above the limit.
5. The caller does not react: a session goes on after a refusal, and an answer that was cut leads
   to no second call. What would have been saved is therefore an upper bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush

from msgspec import Struct, field
from msgspec.structs import replace

from enforcement.rules.estimate import Used, amount_used, price_for
from enforcement.rules.matching import Matcher, Subject, value_of
from enforcement.rules.money import TokenUsage, affordable_output_tokens, charge_nanos
from enforcement.rules.policy import BudgetPolicy, Mode, PricePolicy, Unit
from enforcement.rules.rolling import Ring, new_ring
from enforcement.rules.windows import EPOCH, Window, has_ended, window_at

FLOOR_OUTPUT_TOKENS = 16
PATIENCE = timedelta(seconds=60)
POINTS = 240


class BacktestError(ValueError):
    """The recording cannot be replayed against these budgets."""


class Call(Struct, frozen=True):
    """One recorded call. Without a recorded charge it is priced by the price list."""

    at: datetime
    agent: str
    usage: TokenUsage
    team: str | None = None
    project: str | None = None
    session: str = ""
    model: str = ""
    provider: str = ""
    charge: int | None = None
    user: str = ""
    node: str = ""
    skill: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    gpu_ms: int = 0
    tool_calls: int = 0


class Counts(Struct):
    """What became of calls. `saved` is money, in nano-dollars, that would not have been spent."""

    calls: int = 0
    throttled: int = 0
    cut: int = 0
    refused: int = 0
    charge: int = 0
    saved: int = 0


class Episode(Struct):
    """One balance in one window, and what it stopped."""

    budget: str
    value: str
    window_start: datetime
    window_end: datetime | None
    limit: int
    wanted: int = 0  # what the recording used, whether or not other budgets stopped it
    spent: int = 0
    above: int = 0  # calls over the limit of a soft or observe budget
    throttled: int = 0
    cut: int = 0
    refused: int = 0
    first_at: datetime | None = None
    points: list[tuple[datetime, int, int]] = field(default_factory=list)  # at, wanted, spent


class Report(Struct):
    """The outcome. `episodes` lists every balance, in the order of its first call."""

    total: Counts
    agents: dict[str, Counts]
    episodes: list[Episode]
    first_at: datetime | None
    last_at: datetime | None


class _Budget:
    """A proposed budget at work: its balances, and the window that was last asked for."""

    def __init__(self, policy: BudgetPolicy) -> None:
        self.policy = policy
        self.values: set[str] = set()
        self._window: Window | None = None
        self._balances: dict[tuple[str, datetime], Episode] = {}
        self._rings: dict[str, tuple[Ring, Ring]] = {}  # wanted and spent, of rolling windows

    def balance(self, subject: Subject, at: datetime, found: list[Episode]) -> Episode | None:
        """The balance that a call counts against; None when the split has no room for it."""
        if has_ended(self.policy.window, at):
            return None
        window = self._window
        if window is None or at < window[0] or (window[1] is not None and at >= window[1]):
            window = self._window = window_at(self.policy.window, at)
        value = value_of(self.policy.per, subject)
        known = self._balances.get((value, window[0]))
        if known is None:
            if value not in self.values and len(self.values) >= self.policy.max_values:
                return None
            self.values.add(value)
            known = Episode(self.policy.id, value, *window, limit=self.policy.limit)
            self._balances[value, window[0]] = known
            found.append(known)
            if self.policy.window.kind == "rolling":
                self._rings[value] = (self._new_ring(at), self._new_ring(at))
        self._turn(value, known, at)
        return known

    def _new_ring(self, at: datetime) -> Ring:
        spec = self.policy.window
        return new_ring(length_s=spec.length_s or 0, parts=spec.parts, now_ms=_ms(at))

    def _turn(self, value: str, balance: Episode, at: datetime) -> None:
        """Let go of what left a rolling window."""
        if value in self._rings:
            wanted, spent = self._rings[value]
            balance.wanted -= wanted.turn(_ms(at)).spent
            balance.spent -= spent.turn(_ms(at)).spent

    def want(self, balance: Episode, amount: int) -> None:
        balance.wanted += amount
        if balance.value in self._rings:
            ring = self._rings[balance.value][0]
            ring.add(ring.newest, spent=amount)

    def pay(self, balance: Episode, amount: int) -> None:
        balance.spent += amount
        if balance.value in self._rings:
            ring = self._rings[balance.value][1]
            ring.add(ring.newest, spent=amount)

    def relief(self, balance: Episode) -> datetime | None:
        """When there is room again for certain: the window ends, or its oldest use leaves it."""
        if balance.value not in self._rings:
            return balance.window_end
        at_ms = self._rings[balance.value][1].relief_ms()
        return None if at_ms is None else EPOCH + timedelta(milliseconds=at_ms)


class _Asked(Struct):
    """What one call wants of one budget, and of which balance."""

    budget: _Budget
    balance: Episode | None
    amount: int

    @property
    def hard(self) -> bool:
        return self.budget.policy.mode is Mode.HARD

    @property
    def free(self) -> int:
        return 0 if self.balance is None else self.balance.limit - self.balance.spent


def replay(
    calls: Iterable[Call],
    budgets: Sequence[BudgetPolicy],
    *,
    prices: Sequence[PricePolicy] = (),
    organization: str = "",
    floor: int = FLOOR_OUTPUT_TOKENS,
    patience: timedelta = PATIENCE,
) -> Report:
    """Replay calls in the order of their start.

    Raises:
        BacktestError: a budget in dollars matches a call that has neither charge nor price.
    """
    return _Replay(budgets, prices, organization, floor, patience).run(list(calls))


class _Replay:
    def __init__(
        self,
        budgets: Sequence[BudgetPolicy],
        prices: Sequence[PricePolicy],
        organization: str,
        floor: int,
        patience: timedelta,
    ) -> None:
        self.matcher = Matcher(budgets)
        self.budgets = {policy.id: _Budget(policy) for policy in budgets}
        self.prices = prices
        self.organization = organization
        self.floor = floor
        self.patience = patience
        self.known_prices: dict[tuple[str, str], PricePolicy | None] = {}
        self.total = Counts()
        self.agents: dict[str, Counts] = {}
        self.episodes: list[Episode] = []
        self.step = timedelta(0)

    def run(self, calls: list[Call]) -> Report:
        queue = [(call.at, number) for number, call in enumerate(calls)]
        heapify(queue)
        first = min((call.at for call in calls), default=None)
        last = max((call.at for call in calls), default=None)
        if first is not None and last is not None:
            self.step = (last - first) / POINTS
        while queue:
            at, number = heappop(queue)
            again = self.take(calls[number], at)
            if again is not None:
                heappush(queue, (again, number))
        return Report(self.total, self.agents, self.episodes, first, last)

    def take(self, call: Call, at: datetime) -> datetime | None:
        """Let one call through, or stop it. Returns when it comes back, if it does."""
        price = self.price(call)
        charge = call.charge
        if charge is None:
            charge = 0 if price is None else charge_nanos(call.usage, price)
        asked = self.asked(call, at, charge, priced=call.charge is not None or price is not None)
        first = at == call.at
        if first:
            self.count(call, "calls", asked=())
            self.charge(call, "charge", charge)
            for one in asked:
                _want(one)
        short = [one for one in asked if one.hard and one.free < one.amount]
        if not short:
            self.pay(asked, at)
            return None
        if (opens := self.opens(call, short)) is not None:
            if first:
                self.count(call, "throttled", asked=short, at=at)
            return opens
        output = self.affordable(call, short, price)
        if output < self.floor:
            self.count(call, "refused", asked=short, at=at)
            self.charge(call, "saved", charge)
            return None
        less = replace(
            call.usage,
            output_tokens=output,
            reasoning_tokens=min(call.usage.reasoning_tokens, output),
        )
        paid = charge if price is None else min(charge, charge_nanos(less, price))
        for one in asked:
            one.amount = _amount(one.budget.policy.unit, call, less, paid)
        self.pay(asked, at)
        self.count(call, "cut", asked=short, at=at)
        self.charge(call, "saved", charge - paid)
        return None

    def asked(self, call: Call, at: datetime, charge: int, *, priced: bool) -> list[_Asked]:
        subject = Subject(
            organization=self.organization,
            agent=call.agent,
            team=call.team,
            project=call.project,
            session=call.session,
            user=call.user,
            model=call.model,
            provider=call.provider,
            node=call.node,
            skill=call.skill,
            tags=call.tags,
        )
        plan = [self.budgets[policy.id] for policy in self.matcher.plan(subject).budgets]
        if not priced and any(budget.policy.unit is Unit.USD for budget in plan):
            raise BacktestError(
                f"no price for model {call.model!r}, which a budget in dollars counts"
            )
        return [
            _Asked(
                budget,
                budget.balance(subject, at, self.episodes),
                _amount(budget.policy.unit, call, call.usage, charge),
            )
            for budget in plan
        ]

    def price(self, call: Call) -> PricePolicy | None:
        key = (call.model, call.provider)
        if key not in self.known_prices:
            self.known_prices[key] = price_for(
                self.prices, model=call.model, provider=call.provider
            )
        return self.known_prices[key]

    def opens(self, call: Call, short: list[_Asked]) -> datetime | None:
        """When the last of the short windows ends, if the caller would wait for it."""
        latest = call.at
        for one in short:
            end = None if one.balance is None else one.budget.relief(one.balance)
            if end is None or one.amount > one.budget.policy.limit:
                return None
            latest = max(latest, end)
        return latest if latest - call.at <= self.patience else None

    def affordable(self, call: Call, short: list[_Asked], price: PricePolicy | None) -> int:
        """How many output tokens fit on all short balances; -1 when nothing does."""
        most = call.usage.output_tokens
        for one in short:
            unit, free = one.budget.policy.unit, one.free
            if unit is Unit.TOKENS:
                most = min(most, free - call.usage.input_tokens)
            elif unit is Unit.OUTPUT_TOKENS:
                most = min(most, free)
            elif unit is Unit.USD and price is not None:
                fits = affordable_output_tokens(
                    free, input_tokens=call.usage.input_tokens, price=price
                )
                most = min(most, fits)
            else:
                return -1
        return most

    def pay(self, asked: list[_Asked], at: datetime) -> None:
        for one in asked:
            balance = one.balance
            if balance is None:
                continue
            one.budget.pay(balance, one.amount)
            if balance.spent > balance.limit:  # soft or observe: a hard one has no room for it
                balance.above += 1
                balance.first_at = balance.first_at or at
            self.draw(balance, at)

    def draw(self, balance: Episode, at: datetime) -> None:
        """Note where the balance stands, with at most two points for each step of the picture."""
        point = (at, balance.wanted, balance.spent)
        if len(balance.points) > 1 and at - balance.points[-2][0] < self.step:
            balance.points[-1] = point
        else:
            balance.points.append(point)

    def count(
        self, call: Call, what: str, *, asked: Sequence[_Asked], at: datetime | None = None
    ) -> None:
        agent = self.agents.setdefault(call.agent, Counts())
        for counts in (self.total, agent):
            setattr(counts, what, getattr(counts, what) + 1)
        for one in asked:
            if one.balance is not None:
                setattr(one.balance, what, getattr(one.balance, what) + 1)
                one.balance.first_at = one.balance.first_at or at
                if what == "refused" and at is not None:
                    self.draw(one.balance, at)

    def charge(self, call: Call, what: str, amount: int) -> None:
        for counts in (self.total, self.agents[call.agent]):
            setattr(counts, what, getattr(counts, what) + amount)


def _want(one: _Asked) -> None:
    if one.balance is not None:
        one.budget.want(one.balance, one.amount)


def _ms(at: datetime) -> int:
    return int((at - EPOCH).total_seconds() * 1000)


def _amount(unit: Unit, call: Call, usage: TokenUsage, charge: int) -> int:
    return amount_used(unit, usage, Used(charge, 1, call.gpu_ms, call.tool_calls))


def lowest(report: Report, names: Mapping[str, str]) -> dict[str, Episode]:
    """For each budget by name the balance that came nearest to its limit: what a picture shows."""
    found: dict[str, Episode] = {}
    for episode in report.episodes:
        name = names[episode.budget]
        best = found.get(name)
        if best is None or episode.wanted * best.limit > best.wanted * episode.limit:
            found[name] = episode
    return found
