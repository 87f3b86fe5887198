"""Orders of the control plane, carried out here: states change, streams are cut, both are told.

An order stops at once, or lets what runs end within its hold (`drain`). Calls that are not
forwarded yet end in either case. The one call that a paused session may make to save its work is
not cut by the pause that allows it.
"""

import asyncio
import logging

from enforcement.rules.policy import AgentState, OrderKind, ScopeKind
from enforcement.rules.verdicts import Cut
from enforcement.rules.wire import Order, OrderAck
from enforcement.sidecar import clock
from enforcement.sidecar.desk import Desk, Live
from enforcement.sidecar.policy import PolicyView
from enforcement.sidecar.stopping import Session, sessions_of, stopped_session

STOPPING = {OrderKind.KILL: AgentState.KILLED, OrderKind.PAUSE: AgentState.PAUSED}
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
        state = STOPPING.get(order.kind)
        if state is not None:
            for live in [
                live for live in self._desk.live if _concerns(order, concerned, live, view)
            ]:
                cut = _cut(view, live, state, order=order)
                if order.drain and not live.waits:
                    live.freeze()
                    continue
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
        """After a new policy: end what its agents and sessions may not do any more."""
        view = self._desk.view
        for live in list(self._desk.live) if view is not None else ():
            if view is not None:
                _enforce(view, live)

    def enforce_budgets(self) -> None:
        """After a new policy: hold on what it adds for the calls that run already (L12)."""
        view = self._desk.view
        for live in list(self._desk.live) if view is not None else ():
            if view is not None and not live.finished:
                live.adopt(view)


def _concerns(order: Order, agents: frozenset[str], live: Live, view: PolicyView) -> bool:
    if order.kind is OrderKind.PAUSE and live.call.hands_back:
        return False
    if order.scope_kind is ScopeKind.SESSION:
        return (order.scope_id, order.scope_session) in _sessions(view, live)
    return live.agent_id in agents


def _sessions(view: PolicyView, live: Live) -> list[Session]:
    return sessions_of(view, live.call.agent, live.call.caller)


def _enforce(view: PolicyView, live: Live) -> None:
    agent = view.agents.get(live.agent_id)
    if agent is None:
        live.cut(Cut("agent_killed", "The agent is gone", order="policy"))
        return
    session = stopped_session(view, _sessions(view, live))
    if agent.state in STOPPING.values():
        state, drains, who = agent.state, agent.policy.draining, "agent"
    elif session is not None:
        state, drains, who = session.state, session.draining, "session"
    else:
        return
    if state is AgentState.PAUSED and live.call.hands_back:
        return
    if drains and not live.waits:
        live.freeze()
    else:
        live.cut(_cut(view, live, state, who=who))


def _cut(
    view: PolicyView,
    live: Live,
    state: AgentState,
    *,
    order: Order | None = None,
    who: str = "agent",
) -> Cut:
    """Why a call ends, and whether its session may make one more."""
    if order is not None and order.scope_kind is ScopeKind.SESSION:
        who = "session"
    agent = view.agents.get(live.agent_id)
    left = agent.hand_back_left(live.call.caller.session) if agent is not None else None
    return Cut(
        f"{who}_{state.value}",
        (order.reason if order is not None else "") or f"The {who} is {state.value}",
        order=order.id if order is not None else "policy",
        hand_back_tokens=(left or 0) if state is AgentState.PAUSED else 0,
    )
