"""The states of an agent: the table, and nothing that is not in it."""

from itertools import product

import pytest

from controlplane.audit.models import AuditEntry
from controlplane.identity import domain
from controlplane.identity.domain.agents import TRANSITIONS
from controlplane.identity.enums import State
from controlplane.identity.errors import (
    IdentityValidationError,
    InvalidStateChangeError,
    NotFoundInOrganizationError,
    ReasonRequiredError,
)
from controlplane.identity.models import Agent, Organization
from enforcement.rules.policy import AgentState, OrderKind
from tests.controlplane.world import ACTOR, UNKNOWN, World

ALLOWED = {
    ("active", "throttle"): "throttled",
    ("active", "pause"): "paused",
    ("active", "kill"): "killed",
    ("throttled", "resume"): "active",
    ("throttled", "pause"): "paused",
    ("throttled", "kill"): "killed",
    ("paused", "resume"): "active",
    ("paused", "kill"): "killed",
    ("killed", "resume"): "active",
    ("killed", "kill"): "killed",
}


def test_states_are_those_of_the_wire() -> None:
    assert State.values == [state.value for state in AgentState]


@pytest.mark.parametrize(("state", "order"), list(product(State, OrderKind)))
def test_every_order_moves_as_the_table_says_or_is_refused(
    world: World, state: State, order: OrderKind
) -> None:
    agent = world.agent()
    Agent.objects.filter(pk=agent.pk).update(state=state)
    expected = ALLOWED.get((state.value, order.value))
    assert TRANSITIONS.get((state, order)) == expected
    if expected is None:
        with pytest.raises(InvalidStateChangeError):
            domain.set_agent_state(agent_id=agent.pk, order=order, reason="why", **world.who)
    else:
        domain.set_agent_state(agent_id=agent.pk, order=order, reason="why", **world.who)
    agent.refresh_from_db()
    assert agent.state == (expected or state.value)


def test_a_kill_is_audited_with_reason_and_both_states(world: World) -> None:
    agent = world.agent()
    before = Organization.objects.get().policy_revision
    domain.set_agent_state(agent_id=agent.pk, order=OrderKind.KILL, reason="runs away", **world.who)
    entry = AuditEntry.objects.get(action="agent.kill")
    assert entry.reason == "runs away"
    assert entry.before == {"state": "active", "state_reason": ""}
    assert entry.after == {"state": "killed", "state_reason": "runs away"}
    assert Organization.objects.get().policy_revision == before + 1


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_order_needs_a_reason(world: World, reason: str) -> None:
    agent = world.agent()
    with pytest.raises(ReasonRequiredError):
        domain.set_agent_state(agent_id=agent.pk, order=OrderKind.KILL, reason=reason, **world.who)


def test_no_organization_moves_anothers_agent(world: World, stranger: World) -> None:
    agent = world.agent()
    for agent_id in (agent.pk, UNKNOWN):
        with pytest.raises(NotFoundInOrganizationError, match=f"no agent {agent_id}"):
            domain.set_agent_state(
                agent_id=agent_id, order=OrderKind.KILL, reason="mine", **stranger.who
            )


def test_what_cannot_be_changed_is_named(world: World) -> None:
    agent = world.agent()
    with pytest.raises(IdentityValidationError) as caught:
        domain.change_agent(agent_id=agent.pk, changes={"slug": "x"}, **world.who)
    assert (caught.value.field, caught.value.message) == ("slug", "cannot be changed")


def test_a_change_that_changes_nothing_is_not_audited(world: World) -> None:
    agent = world.agent()
    before = Organization.objects.get().policy_revision
    domain.change_agent(agent_id=agent.pk, changes={"name": "Reader"}, **world.who)
    assert AuditEntry.objects.filter(action="agent.change").count() == 0
    assert Organization.objects.get().policy_revision == before


def test_the_policy_revision_rises_by_one_each_time(world: World) -> None:
    first = domain.bump_policy(world.id)
    assert domain.bump_policy(world.id) == first + 1
    assert ACTOR.kind == "system"
