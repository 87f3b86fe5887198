"""Orders of the control plane, carried out here: states change, streams are cut, both are told."""

import asyncio
import logging

from enforcement.rules.policy import AgentState, OrderKind
from enforcement.rules.verdicts import Cut
from enforcement.rules.wire import Order, OrderAck
from enforcement.sidecar import clock
from enforcement.sidecar.desk import Desk, Live

STOPPING = {OrderKind.KILL: "agent_killed", OrderKind.PAUSE: "agent_paused"}
SETTLE_S = 0.6
STEP_S = 0.02

log = logging.getLogger(__name__)


class Orders:
    """Carries out orders and acknowledges them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()

    def carry_out(self, order: Order) -> None:
        """Change states, cut what must end, and acknowledge once the engines have stopped."""
        view = self._desk.view
        if view is None:
            return
        received_ns = clock.now_ns()
        concerned = view.apply(order)
        log.info("order %s: %s of %s %s", order.id, order.kind, order.scope_kind, order.scope_id)
        stopped: list[tuple[Live, int]] = []
        streams = 0
        reason = STOPPING.get(order.kind)
        if reason is not None:
            cut = Cut(reason, order.reason or f"The agent was {_done(order.kind)}", order=order.id)
            for live in [live for live in self._desk.live if live.agent_id in concerned]:
                streams += live.streaming
                stopped.append((live, live.produced))
                live.cut(cut)
        last_byte_ms = (clock.now_ns() - received_ns) // 1_000_000
        acknowledgement = OrderAck(order.id, streams_cut=streams, last_byte_ms=last_byte_ms)
        if not stopped:
            self._acknowledge(acknowledgement)
            return
        task = asyncio.get_running_loop().create_task(self._follow(acknowledgement, stopped))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, acknowledgement: OrderAck, stopped: list[tuple[Live, int]]) -> None:
        """Wait for the engines' last words, so that the acknowledgement can count them."""
        for _ in range(int(SETTLE_S / STEP_S)):
            if all(live.finished for live, _ in stopped):
                break
            await asyncio.sleep(STEP_S)
        after = sum(max(live.produced - before, 0) for live, before in stopped)
        self._acknowledge(
            OrderAck(
                acknowledgement.order,
                streams_cut=acknowledgement.streams_cut,
                tokens_after=after,
                last_byte_ms=acknowledgement.last_byte_ms,
            )
        )

    def _acknowledge(self, acknowledgement: OrderAck) -> None:
        self._desk.book.acknowledge_order(acknowledgement)
        self._desk.ask_now()

    def enforce_states(self) -> None:
        """After a new policy: end what its agents may not do any more."""
        view = self._desk.view
        for live in list(self._desk.live) if view is not None else ():
            agent = view.agents.get(live.agent_id) if view is not None else None
            if agent is None:
                live.cut(Cut("agent_killed", "The agent is gone", order="policy"))
            elif agent.state in (AgentState.KILLED, AgentState.PAUSED):
                reason = f"agent_{agent.state.value}"
                live.cut(Cut(reason, f"The agent is {agent.state.value}", order="policy"))

    def enforce_budgets(self) -> None:
        """After a new policy: hold on what it adds for the calls that run already (L12)."""
        view = self._desk.view
        for live in list(self._desk.live) if view is not None else ():
            if view is not None and not live.finished:
                live.adopt(view)


def _done(kind: OrderKind) -> str:
    return "killed" if kind is OrderKind.KILL else "paused"
