"""Rates by GCRA, the generic cell rate algorithm: one instant per limit, no buckets to refill.

The state of a limit is its theoretical arrival time (TAT): the instant at which all that was
spent so far would be paid for at the steady rate. A cost fits when it moves the TAT at most one
burst ahead of now. Times are monotonic nanoseconds, given by the caller.
"""

from msgspec import Struct

MINUTE_NS = 60_000_000_000


class Limit(Struct, frozen=True):
    """`per_minute` units a minute; a burst may spend a whole minute's worth at once."""

    per_minute: int

    def cost_ns(self, amount: int) -> int:
        """How much of the minute an amount takes. More than a minute's worth counts as one."""
        return -(-min(amount, self.per_minute) * MINUTE_NS // self.per_minute)


class Decision(Struct, frozen=True):
    """`retry_in_ns` is 0 when allowed, else how long until the same amount would fit."""

    tat_ns: int
    retry_in_ns: int = 0

    @property
    def allowed(self) -> bool:
        return self.retry_in_ns == 0


def try_spend(limit: Limit, *, tat_ns: int, amount: int, now_ns: int) -> Decision:
    """Spend an amount, or say when it would fit; the state stays as it was in that case."""
    new_tat = max(tat_ns, now_ns) + limit.cost_ns(amount)
    wait_ns = new_tat - MINUTE_NS - now_ns
    if wait_ns > 0:
        return Decision(tat_ns=tat_ns, retry_in_ns=wait_ns)
    return Decision(tat_ns=new_tat)


def refund(limit: Limit, *, tat_ns: int, amount: int) -> int:
    """The state after giving back what was spent and not used."""
    return tat_ns - limit.cost_ns(amount)
