"""What all requests of a sidecar share: policy, book, journal, routes, counts.

`commit` is the one way from a changed book to the disk: it is called before anything that the
change pays for leaves this process.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec
from msgspec import Struct

from enforcement.rules import records
from enforcement.rules.book import Book
from enforcement.rules.lots import BalanceKey
from enforcement.rules.verdicts import UNAVAILABLE, Cut, Refuse
from enforcement.rules.wire import Denial, RefusalCount, SessionInfo, UsageEvent
from enforcement.sidecar import clock
from enforcement.sidecar.admission import Call
from enforcement.sidecar.config import Config
from enforcement.sidecar.front import ClientConnection
from enforcement.sidecar.journal import Journal
from enforcement.sidecar.metrics import Metrics
from enforcement.sidecar.policy import PolicyView
from enforcement.sidecar.routing import Router
from enforcement.sidecar.telemetry import RefusedCall, Telemetry

_encode = msgspec.json.Encoder().encode
MAX_REFUSAL_KEYS = 1_000
DIRTY_MS = 100


class Waiter(Protocol):
    """Who waits for a group."""

    def on_granted(self, granted: dict[BalanceKey, int]) -> None: ...
    def on_denied(self, denial: Denial) -> None: ...
    def on_released(self) -> bool: ...  # whether the next one may try too


class Live(Protocol):
    """A request that is running, as orders, deadlines and live pages see it."""

    @property
    def agent_id(self) -> str: ...
    @property
    def streaming(self) -> bool: ...
    @property
    def produced(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    @property
    def call(self) -> Call: ...
    @property
    def waits(self) -> bool: ...  # nothing is forwarded yet

    def freeze(self) -> None: ...  # go on within what is held, and no further
    def cut(self, cut: Cut) -> None: ...
    def adopt(self, view: PolicyView) -> None: ...
    def check_deadline(self, now_ns: int) -> None: ...
    def session_info(self, now_ms: int) -> SessionInfo | None: ...
    def presumed_event(self) -> tuple[int, UsageEvent] | None: ...


class Unsent(Struct, gc=False):
    """A usage event that the control plane has not acknowledged, as it goes there: JSON."""

    sequence: int
    event: bytes

    @classmethod
    def of(cls, sequence: int, event: UsageEvent) -> "Unsent":
        return cls(sequence, _encode(event))


class Desk:
    """Shared state of one worker. Single-threaded: no locks."""

    def __init__(self, config: Config, *, book: Book, journal: Journal, router: Router) -> None:
        self.config = config
        self.book = book
        self.journal = journal
        self.router = router
        self.metrics = Metrics()
        self.telemetry: Telemetry | None = None
        self.view: PolicyView | None = None
        self.live: set[Live] = set()
        self.waiting: dict[str, Waiter] = {}
        self.unsent: deque[Unsent] = deque()
        self.refusals: dict[tuple[str, str, str, str], RefusalCount] = {}
        self.closing = False
        self.config_error = ""  # why the last configuration was not taken up
        self._committing = False  # at the end of this turn of the loop
        self._releasing = False
        self.post: Callable[[str, bytes], Awaitable[bytes]] = _nowhere  # to the control plane
        # How a call begins; another attempt begins like the first.
        self.begin: Callable[[ClientConnection, Call, str], None] = _nobody
        self.wake: Callable[[bool], None] = lambda _: None  # True: at once, False: soon

    def ready(self, *, now_ns: int) -> Refuse | None:
        """Why nothing at all may be forwarded now; None when all is well (L12, I11)."""
        if self.view is None or not self.book.policy_is_fresh(now_ns=now_ns):
            return _closed("policy_stale", "The control plane has not been heard of for too long")
        if not self.journal.accepts_holds:
            return _closed("journal_unwritable", "The journal cannot be written")
        if self.closing:
            return _closed("shutting_down", "This sidecar is shutting down")
        return None

    def commit(self) -> bool:
        """Write what the book has decided. False: it is not on disk, nothing may rely on it."""
        out = self.book.lots.journal_out
        if not out:
            return self.journal.accepts_holds
        sequence = self.journal.sequence
        for position, record in enumerate(out, start=1):
            if type(record) is records.Settled and record.event is not None:
                self.unsent.append(Unsent(sequence + position, _encode(record.event)))
                if record.overrun:
                    self.metrics.overruns += 1
        written = self.journal.append_records(out)
        self.wake(False)
        return written

    def commit_soon(self) -> None:
        """Write before this turn of the event loop ends, with what others decide in it.

        For what ends a hold: if it is lost, the whole hold counts as used.
        """
        if not self._committing:
            self._committing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits for the end of the turn."""
        self._committing = False
        self.commit()

    def released(self) -> None:
        """There is more to hold here: who waits may fit now, in the order of their asking."""
        if self.waiting and not self._releasing:
            self._releasing = True  # a waiter that gets through may end at once, and release
            try:
                for waiter in list(self.waiting.values()):
                    if not waiter.on_released():
                        break
            finally:
                self._releasing = False

    @contextmanager
    def swapping(self) -> Iterator[None]:
        """What is freed inside goes first to who frees it, and then to those who wait."""
        outer, self._releasing = self._releasing, True
        try:
            yield
        finally:
            self._releasing = outer
        self.released()

    def ask_now(self) -> None:
        self.wake(True)

    def refuse(self, call: Call, refusal: Refuse, *, request_id: str, started_ms: int) -> None:
        """Count, and tell, that a call goes no further than its placement."""
        agent, parsed = call.agent.policy.id, call.parsed
        self.count_refusal(refusal, agent=agent, model=parsed.model)
        if self.telemetry is None:
            return
        self.telemetry.refused(
            RefusedCall(
                trace=call.caller.trace,
                refusal=refusal,
                request_id=request_id,
                agent=agent,
                started_ns=started_ms * 1_000_000,
                ended_ns=time.time_ns(),
                endpoint=parsed.endpoint.value,
                model=parsed.model,
                session=call.caller.session,
                engine=call.upstream.engine.value,
            )
        )

    def count_refusal(self, refusal: Refuse, *, agent: str, model: str) -> None:
        """Remember a refusal for metrics and for the agent's page."""
        self.metrics.count_refusal(refusal.key)
        if not agent:
            return
        budget = refusal.budget.id if refusal.budget else ""
        key = (agent, refusal.key, model, budget)
        known = self.refusals.get(key)
        if known is None and len(self.refusals) >= MAX_REFUSAL_KEYS:
            return
        self.refusals[key] = RefusalCount(
            id=known.id if known else clock.new_id(),
            agent=agent,
            code=refusal.key,
            count=(known.count if known else 0) + 1,
            last_at_ms=clock.now_ms(),
            model=model,
            budget=budget,
            message=refusal.message,
        )
        self.wake(False)


def _nobody(client: ClientConnection, call: Call, event_id: str) -> None:
    raise RuntimeError(f"nobody begins call {event_id} of {call} for {client}")


async def _nowhere(path: str, body: bytes) -> bytes:  # noqa: ARG001 -- until there is a client
    raise ConnectionError("no control plane")


def _closed(reason: str, message: str) -> Refuse:
    return Refuse(
        status=503,
        type=UNAVAILABLE,
        code=UNAVAILABLE,
        reason=reason,
        message=message,
        retry_after_s=2,
    )
