"""Sessions that people have stopped, and the sessions below them."""

from contextlib import suppress

from enforcement.rules.policy import AgentState, SessionPolicy
from enforcement.rules.sessiontree import LineageError
from enforcement.sidecar.identity import Caller
from enforcement.sidecar.policy import Agent, PolicyView

Session = tuple[str, str]  # agent and name


def sessions_of(view: PolicyView, agent: Agent, caller: Caller) -> list[Session]:
    """The sessions that a call belongs to: its own, and those above it (L14)."""
    own = [(agent.policy.id, caller.session)]
    if not caller.delegation:
        return own
    with suppress(LineageError):  # an agent of it is gone since: the call ends for that
        own += [(level.agent, level.session) for level in view.lineage(caller.delegation).levels]
    return own


def stopped_session(view: PolicyView, sessions: list[Session]) -> SessionPolicy | None:
    """The one of these sessions that is stopped, a killed one first; None if all may go on."""
    found = [stopped for key in sessions if (stopped := view.sessions.get(key)) is not None]
    killed = [stopped for stopped in found if stopped.state is AgentState.KILLED]
    return next(iter(killed or found), None)
