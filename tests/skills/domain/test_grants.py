"""Granting cards to agents, and taking grants back."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from controlplane.audit.domain import Actor
from controlplane.identity.models import Agent, Organization
from enforcement.rules.cardformat import Capabilities, ToolCapability
from skills.domain.cards import revoke_card
from skills.domain.grants import grant_card, revoke_grant
from skills.errors import AlreadyGrantedError, AlreadyRevokedError, CardNotGrantableError
from skills.models import Skill, SkillCard, SkillGrant
from tests.skills.conftest import actions, make_agent
from tests.skills.publisher import NOW

Sign = Callable[..., SkillCard]


@pytest.fixture
def skill(import_files: Callable[..., Skill]) -> Skill:
    return import_files(signed=False)


@pytest.fixture
def card(skill: Skill, sign: Sign) -> SkillCard:
    return sign(skill)


def test_grant_and_revoke(
    card: SkillCard, agent: Agent, actor: Actor, organization: Organization
) -> None:
    grant = grant_card(card=card, agent=agent, actor=actor, reason="weekly report", now=NOW)

    revoked = revoke_grant(grant=grant, actor=actor, reason="done", now=NOW)

    assert (revoked.reason, revoked.revoke_reason) == ("weekly report", "done")
    assert (revoked.granted_by, revoked.revoked_by) == (actor.label, actor.label)
    assert actions(organization)[-2:] == ["skill_grant.create", "skill_grant.revoke"]


def test_one_live_grant_of_a_card(card: SkillCard, agent: Agent, actor: Actor) -> None:
    grant = grant_card(card=card, agent=agent, actor=actor, now=NOW)

    with pytest.raises(AlreadyGrantedError):
        grant_card(card=card, agent=agent, actor=actor, now=NOW)
    revoke_grant(grant=grant, actor=actor, now=NOW)
    with pytest.raises(AlreadyRevokedError):
        revoke_grant(grant=grant, actor=actor, now=NOW)
    grant_card(card=card, agent=agent, actor=actor, now=NOW)

    assert SkillGrant.objects.count() == 2


@pytest.mark.parametrize(
    ("named", "tools", "granted"),
    [
        (["Read", "Bash"], ["Read"], True),
        (["Read", "Bash"], [], True),
        (["Read"], ["read"], False),
        (["Read"], ["Read", "Write"], False),
        (["mcp__docs__*"], ["mcp__docs__search"], True),
        (["mcp__docs__*"], ["mcp__docs__s*"], True),
        (["mcp__docs__*"], ["mcp__*"], False),
        (["Read"], ["*"], False),
        (["*"], ["anything"], True),
    ],
)
def test_grant_only_narrows(
    skill: Skill,
    sign: Sign,
    agent: Agent,
    actor: Actor,
    *,
    named: Sequence[str],
    tools: Sequence[str],
    granted: bool,
) -> None:
    tool_list = [ToolCapability(name=name) for name in named]
    card = sign(skill, capabilities=Capabilities(tools=tool_list))

    if granted:
        grant = grant_card(card=card, agent=agent, tools=tools, actor=actor, now=NOW)
        assert grant.tools == tools
    else:
        with pytest.raises(CardNotGrantableError, match="does not name"):
            grant_card(card=card, agent=agent, tools=tools, actor=actor, now=NOW)


def test_only_active_cards_are_granted(
    skill: Skill, card: SkillCard, sign: Sign, agent: Agent, actor: Actor
) -> None:
    second = sign(skill)

    with pytest.raises(CardNotGrantableError, match="superseded"):
        grant_card(card=card, agent=agent, actor=actor, now=NOW)
    with pytest.raises(CardNotGrantableError, match="expired"):
        grant_card(card=second, agent=agent, actor=actor, now=NOW + timedelta(days=30))
    revoke_card(card=second, actor=actor, reason="x", now=NOW)
    with pytest.raises(CardNotGrantableError, match="revoked"):
        grant_card(card=second, agent=agent, actor=actor, now=NOW)


def test_agent_of_another_organization(
    card: SkillCard, stranger: Organization, actor: Actor
) -> None:
    foreign = make_agent(stranger, "other")

    with pytest.raises(CardNotGrantableError, match="another organization"):
        grant_card(card=card, agent=foreign, actor=actor, now=NOW)
