"""A call on its way through the queue of its node.

A slot is taken after the rates and before the hold: who waits for a node keeps no money from
others.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from enforcement.rules.modelroutes import Lane
from enforcement.rules.verdicts import RATE, Refuse
from enforcement.sidecar.admission import Call
from enforcement.sidecar.unsent import Unsent


class Queueing(Unsent, ABC):
    """The part of a call's way on which it waits: with one timer, for one thing at a time."""

    _deadline_ns = 0  # for all of it; 0: nothing was waited for yet
    _done = False
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def call(self) -> Call:
        return self._call

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._on_timer, then)

    def _on_timer(self, then: Callable[[], None]) -> None:
        self._timer = None
        if not self._done:
            then()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_slot(self) -> None:
        """Go on with a slot; if there is none, wait for it."""
        call = self._call
        slots = call.upstream.slots
        if slots is None or call.slot is not None:
            self._place(full=False)
            return
        agent = call.agent.policy
        batch = call.caller.lane is Lane.BATCH
        if slots.take(agent.id, self, weight=agent.priority + 1, batch=batch):
            call.slot = slots
            self._place(full=False)
        else:
            self._later(slots.batch_timeout_s if batch else slots.timeout_s, self.on_no_slot)

    def on_slot(self) -> None:
        """It is this call's turn."""
        slots = self._call.upstream.slots
        if slots is None:
            return
        if self._done:
            slots.give_back(self._call.agent.policy.id)
            return
        self._call.slot = slots
        self._stop_waiting()
        self._deadline_ns = 0  # the time for a grant counts from here
        self._place(full=False)

    def on_no_slot(self) -> None:
        """There was none in time, or others may wait rather."""
        if not self._done:
            self._refuse(_busy(self._call))

    def _leave_node(self) -> None:
        """Give back the slot, or the place in the queue."""
        call = self._call
        slots = call.upstream.slots
        if slots is not None and call.slot is None:
            slots.leave(call.agent.policy.id, self)
        call.give_back_slot()
        if call.hands_back:  # it was not made: another one may be
            call.agent.rates.handed_back.discard(call.caller.session)

    @abstractmethod
    def _place(self, *, full: bool) -> None:
        """Hold, and go on."""

    @abstractmethod
    def _refuse(self, refusal: Refuse) -> None:
        """End the call here."""


def _busy(call: Call) -> Refuse:
    slots = call.upstream.slots
    return Refuse(
        status=429,
        type=RATE,
        message=f"Node {call.upstream.name!r} has no room for another call of this agent",
        reason="node_busy",
        retry_after_s=slots.retry_after_s if slots is not None else 1,
    )
