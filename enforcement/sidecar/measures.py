"""What thresholds that were reached do here: reroute, throttle, refuse and cut calls of a balance.

They come with the policy, for budgets of every mode. Where none holds, nothing is looked up. A
throttle's rate is this book's own: it starts full, and outlives policy revisions.
"""

from collections.abc import Sequence

from enforcement.rules.gcra import Limit, try_spend
from enforcement.rules.lots import BalanceKey
from enforcement.rules.matching import Matcher, Subject
from enforcement.rules.policy import Measure, PolicySnapshot
from enforcement.rules.thresholds import ActionKind
from enforcement.rules.verdicts import Cut, Refuse, measure_cut, measure_refusal

_STOPS = (ActionKind.CUT, ActionKind.REFUSE, ActionKind.PAUSE)  # what ends a call, the worst first


def share_of(per_minute: int, books: int) -> int:
    """What one of several books of a sidecar may let through: at least 1.

    The sum stays within the rate, unless that is below one for each (L1).
    """
    return max(per_minute // books, 1)


class Throttle:
    """One rate of one balance."""

    __slots__ = ("limit", "tat_ns")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.tat_ns = 0


class Measures:
    """The measures of a policy, by balance."""

    def __init__(
        self, snapshot: PolicySnapshot, *, previous: "Measures | None", books: int = 1
    ) -> None:
        self._by_balance: dict[BalanceKey, list[Measure]] = {}
        for measure in snapshot.measures:
            self._by_balance.setdefault((measure.budget, measure.value), []).append(measure)
        concerned = {measure.budget for measure in snapshot.measures}
        self._budgets = {b.id: b for b in snapshot.budgets if b.id in concerned}
        self._matcher = Matcher(list(self._budgets.values())) if concerned else None
        known = previous._throttles if previous else {}  # noqa: SLF001 -- same class
        self._throttles: dict[tuple[str, str, int], Throttle] = {}
        for measure in snapshot.measures:
            if measure.kind == ActionKind.THROTTLE:
                key = (measure.budget, measure.value, measure.requests_per_minute)
                fresh = Throttle(Limit(share_of(measure.requests_per_minute, books)))
                self._throttles[key] = known.get(key, fresh)

    def of(self, subject: Subject) -> tuple[Measure, ...]:
        """The measures that hold for a call."""
        if self._matcher is None:
            return ()
        keys = self._matcher.plan(subject).balances(subject)
        return tuple(measure for key in keys for measure in self._by_balance.get(key, ()))

    def refusal(self, measures: Sequence[Measure]) -> Refuse | None:
        """Why a new call does not begin; None if it may."""
        for kind in _STOPS:
            for measure in measures:
                if measure.kind == kind:
                    return measure_refusal(measure, self._budgets[measure.budget])
        return None

    def cut(self, measures: Sequence[Measure]) -> Cut | None:
        """Why a running call ends; None if it may go on."""
        for measure in measures:
            if measure.kind == ActionKind.CUT:
                return measure_cut(measure, self._budgets[measure.budget])
        return None

    def retry_in_ns(self, measures: Sequence[Measure], *, now_ns: int) -> int:
        """Spend one request of every throttle, or none: then how long until it would fit."""
        wanted = ((m.budget, m.value, m.requests_per_minute) for m in measures)
        throttles = [self._throttles[key] for key in wanted if key in self._throttles]
        decisions = [
            try_spend(throttle.limit, tat_ns=throttle.tat_ns, amount=1, now_ns=now_ns)
            for throttle in throttles
        ]
        wait_ns = max((decision.retry_in_ns for decision in decisions), default=0)
        if not wait_ns:
            for throttle, decision in zip(throttles, decisions, strict=True):
                throttle.tat_ns = decision.tat_ns
        return wait_ns


def target_of(measures: Sequence[Measure], model: str) -> str:
    """The model that a call is rerouted to; empty if it stays. The highest threshold decides."""
    reroutes = [m for m in measures if m.kind == ActionKind.REROUTE]
    target = max(reroutes, key=lambda m: m.percent).model if reroutes else ""
    return target if target != model else ""
