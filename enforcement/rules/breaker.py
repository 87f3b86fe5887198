"""When a node that keeps failing is left alone, and when it is tried again.

A circuit breaker (Nygard, *Release It!*, 2007): closed while calls succeed; open, and nothing is
sent, after so many failures in a row; then half-open: one call is let through and decides. No flag
marks the half-open state: the call that is let through moves the end of the rest, so that others
stay out until it is known how it went, or until it has taken as long as a rest.
"""


class Breaker:
    """The breaker of one node. Times are monotonic nanoseconds, given by the caller."""

    __slots__ = ("_failures", "_most", "_rest_ns", "_until_ns")

    def __init__(self, *, failures: int, rest_ns: int) -> None:
        self._most = failures
        self._rest_ns = rest_ns
        self._failures = 0
        self._until_ns = 0  # 0: closed

    def refuses(self, now_ns: int) -> bool:
        """Whether nothing should be sent now."""
        return now_ns < self._until_ns

    def rests_for_ns(self, now_ns: int) -> int:
        """How long nothing should be sent."""
        return max(self._until_ns - now_ns, 0)

    def begin(self, now_ns: int) -> None:
        """A call is sent; after a rest it is the only one until it has ended."""
        if self._until_ns:
            self._until_ns = now_ns + self._rest_ns

    def succeed(self) -> None:
        """The node answered as it should."""
        self._failures = self._until_ns = 0

    def fail(self, now_ns: int) -> None:
        """The node did not."""
        self._failures += 1
        if self._failures >= self._most:
            self._until_ns = now_ns + self._rest_ns

    def rest(self, now_ns: int, *, for_ns: int) -> None:
        """The node asked to be left alone for so long."""
        self._until_ns = max(self._until_ns, now_ns + for_ns)
