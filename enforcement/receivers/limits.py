"""How fast an organization may report to this process: GCRA, in memory."""

import threading
import time
from collections import OrderedDict
from uuid import UUID

from enforcement.errors import TooManyReportsError
from enforcement.rules.gcra import Limit, try_spend

MAX_KEPT = 10_000  # organizations
_NS_PER_S = 1_000_000_000


class ReportRate:
    """Requests a minute of each organization; a burst may take a whole minute's worth."""

    def __init__(self) -> None:
        self._tats: OrderedDict[UUID, int] = OrderedDict()
        self._lock = threading.Lock()

    def spend(self, organization_id: UUID, *, per_minute: int) -> None:
        """Raises TooManyReportsError, with the seconds to wait."""
        now_ns = time.monotonic_ns()
        with self._lock:
            tat_ns = self._tats.pop(organization_id, now_ns)
            decision = try_spend(Limit(per_minute), tat_ns=tat_ns, amount=1, now_ns=now_ns)
            self._tats[organization_id] = decision.tat_ns
            while len(self._tats) > MAX_KEPT:
                self._tats.popitem(last=False)
        if not decision.allowed:
            wait_s = -(-decision.retry_in_ns // _NS_PER_S)
            raise TooManyReportsError(
                f"at most {per_minute} reports a minute", retry_after_s=wait_s
            )
