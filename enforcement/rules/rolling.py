"""Rolling windows: the use of the last `parts + 1` sub-buckets, in one row.

1. Whatever is in the ring counts against the limit. The ring covers the sub-bucket of now and the
   `parts` before it, so it holds *every* interval of the window's length that ends now: no such
   interval can contain more than the limit. The price is at most one sub-bucket of patience.
2. Use belongs to the sub-bucket in which its lease was granted, and a lease's deadline is the end
   of that sub-bucket. What comes later than its sub-bucket left the ring counts nowhere.
3. The ring follows the ledger's clock. When that steps back, what stood in the future moves into
   the sub-bucket of now: it is counted for longer, never for less. A ring cannot be stuck.

Sans-IO. Amounts are in the unit of the budget; instants are on the ledger's own clock.
"""

from msgspec import Struct, field

MIN_BUCKET_S = 30  # at least two lease lifetimes; a shorter window is a rate
MOST_PARTS = 48
USUAL_PARTS = 24
MAX_LENGTH_S = 366 * 86_400


class Ring(Struct):
    """Spent and overrun of each sub-bucket, the oldest first. `newest` numbers the last one."""

    bucket_ms: int
    newest: int
    spent: list[int] = field(default_factory=list)
    overrun: list[int] = field(default_factory=list)

    def bucket_at(self, at_ms: int) -> int:
        return at_ms // self.bucket_ms

    def bucket_of_lease(self, expires_at_ms: int) -> int:
        """A lease never outlives its sub-bucket: its deadline tells which one that is."""
        return (expires_at_ms - 1) // self.bucket_ms

    def end_ms(self, at_ms: int) -> int:
        """The end of the sub-bucket that contains an instant."""
        return (self.bucket_at(at_ms) + 1) * self.bucket_ms

    def turn(self, now_ms: int) -> "Aged":
        """Follow the clock. Returns what left the window."""
        steps = self.bucket_at(now_ms) - self.newest
        self.newest += steps
        if steps > 0:
            gone = min(steps, len(self.spent))
            aged = Aged(sum(self.spent[:gone]), sum(self.overrun[:gone]))
            self.spent = [*self.spent[gone:], *[0] * gone]
            self.overrun = [*self.overrun[gone:], *[0] * gone]
            return aged
        if steps < 0:
            self.spent = _pushed_back(self.spent, -steps)
            self.overrun = _pushed_back(self.overrun, -steps)
        return Aged()

    def add(self, bucket: int, *, spent: int = 0, overrun: int = 0) -> "Aged":
        """Count use of a sub-bucket. Returns what of it is out of the window already."""
        place = self._place(bucket)
        if place < 0:
            return Aged(spent, overrun)
        self.spent[place] += spent
        self.overrun[place] += overrun
        return Aged()

    def take_back(self, amount: int) -> None:
        """A correction: less was spent. The youngest use goes first: it would count longest."""
        for place in reversed(range(len(self.spent))):
            part = min(amount, self.spent[place])
            self.spent[place] -= part
            amount -= part

    def spent_in(self, bucket: int) -> int | None:
        """What a sub-bucket has spent; None if it has left the window."""
        place = self._place(bucket)
        return self.spent[place] if place >= 0 else None

    def take_back_from(self, bucket: int, amount: int) -> None:
        """A correction of what one sub-bucket of the window spent."""
        self.spent[self._place(bucket)] -= amount

    def _place(self, bucket: int) -> int:
        return min(bucket, self.newest) - self.newest + len(self.spent) - 1

    def relief_ms(self) -> int | None:
        """When the oldest use leaves the window; None if nothing was used."""
        for place, (spent, overrun) in enumerate(zip(self.spent, self.overrun, strict=True)):
            if spent or overrun:
                return (self.newest + place + 1) * self.bucket_ms
        return None


class Aged(Struct, frozen=True):
    """What left a rolling window."""

    spent: int = 0
    overrun: int = 0

    def __bool__(self) -> bool:
        return bool(self.spent or self.overrun)


def new_ring(*, length_s: int, parts: int, now_ms: int) -> Ring:
    """An empty ring for a window that `shape_problem` finds nothing wrong with."""
    bucket_ms = length_s // parts * 1000
    return Ring(bucket_ms, now_ms // bucket_ms, [0] * (parts + 1), [0] * (parts + 1))


def usual_parts(length_s: int) -> int:
    """How many sub-buckets suit a window; 0 if none do."""
    fit = (p for p in range(USUAL_PARTS, 0, -1) if shape_problem(length_s, p) is None)
    return next(fit, 0)


def shape_problem(length_s: int, parts: int) -> tuple[str, str] | None:
    """What is wrong with a rolling window, as (field, words); None if nothing is."""
    if not MIN_BUCKET_S <= length_s <= MAX_LENGTH_S:
        return "rolling_s", (
            f"a rolling window has {MIN_BUCKET_S} to {MAX_LENGTH_S} seconds, not {length_s};"
            " what is shorter is a rate"
        )
    if not 1 <= parts <= MOST_PARTS:
        return "rolling_parts", f"a rolling window has 1 to {MOST_PARTS} parts, not {parts}"
    if length_s % parts or length_s // parts < MIN_BUCKET_S:
        most = min(MOST_PARTS, length_s // MIN_BUCKET_S)
        fitting = [p for p in range(1, most + 1) if length_s % p == 0]
        nearest = min(fitting, key=lambda p: (abs(p - parts), p))
        return "rolling_parts", (
            f"{length_s} seconds have no {parts} equal parts of whole seconds and at least"
            f" {MIN_BUCKET_S}; the nearest number is {nearest}"
        )
    return None


def _pushed_back(amounts: list[int], steps: int) -> list[int]:
    """The clock stepped back: what is in the future now happened at the latest now."""
    keep = max(len(amounts) - steps, 1)
    kept = [*amounts[: keep - 1], sum(amounts[keep - 1 :])]
    return [*[0] * (len(amounts) - keep), *kept]
