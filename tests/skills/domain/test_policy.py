"""What sidecars learn of cards, judged by the gate that they use."""

from collections.abc import Callable

import pytest

from controlplane.audit.domain import Actor
from controlplane.identity.models import Agent, Organization
from enforcement.rules.policy import AgentPolicy, PolicySnapshot
from enforcement.rules.skillgate import CardGate
from skills.domain.cards import revoke_card
from skills.domain.grants import grant_card, revoke_grant
from skills.domain.policy import CardPolicy, policy_cards
from skills.domain.trust import switch_trust_root
from skills.models import SigningKey, Skill, SkillCard, TrustRoot
from tests.skills.publisher import NOW

Import = Callable[..., Skill]
Sign = Callable[..., SkillCard]
NOW_MS = 1_795_176_000_000


def verdict(organization: Organization, agent: Agent, *tools: str) -> str | None:
    """The code with which a sidecar would refuse, or None."""
    found = policy_cards(organization)
    policy = PolicySnapshot(
        organization=str(organization.pk),
        revision=1,
        cards=found.cards,
        card_keys=found.keys,
        revoked_cards=found.revoked,
    )
    who = AgentPolicy(
        id=str(agent.pk),
        slug=agent.slug,
        requires_card=True,
        grants=found.grants.get(str(agent.pk), []),
    )
    denial = CardGate(policy).deny(who, tools, now_ms=NOW_MS)
    return None if denial is None else denial.code


def test_nothing_is_said_without_grants(
    organization: Organization, import_files: Import, sign: Sign, agent: Agent
) -> None:
    sign(import_files(signed=False))

    assert policy_cards(organization.pk)[:1] == ({},)
    assert verdict(organization, agent) == "missing"


def test_granted_card_covers_its_tools(
    organization: Organization, import_files: Import, sign: Sign, agent: Agent, actor: Actor
) -> None:
    card = sign(import_files(signed=False))
    grant = grant_card(card=card, agent=agent, tools=["Read"], actor=actor, now=NOW)

    assert verdict(organization, agent, "Read") is None
    assert verdict(organization, agent, "Bash") == "tool_not_granted"
    assert verdict(organization, agent, "SHELL") == "tool_denied"
    revoke_grant(grant=grant, actor=actor, now=NOW)
    assert verdict(organization, agent, "Read") == "missing"


def test_revoked_card(
    organization: Organization, import_files: Import, sign: Sign, agent: Agent, actor: Actor
) -> None:
    card = sign(import_files(signed=False))
    grant_card(card=card, agent=agent, actor=actor, now=NOW)

    revoke_card(card=card, actor=actor, reason="x", now=NOW)

    assert verdict(organization, agent) == "revoked"


def test_superseded_card_is_rolled_back(
    organization: Organization, import_files: Import, sign: Sign, agent: Agent, actor: Actor
) -> None:
    skill = import_files(signed=False)
    first = sign(skill)
    grant_card(card=first, agent=agent, actor=actor, now=NOW)
    second = sign(skill)

    assert set(policy_cards(organization).cards) == {first.digest, second.digest}
    assert verdict(organization, agent) == "rolled_back"


@pytest.mark.usefixtures("trusted_root")
def test_card_over_a_publisher_who_is_trusted_no_more(
    organization: Organization, import_files: Import, sign: Sign, agent: Agent, actor: Actor
) -> None:
    grant_card(card=sign(import_files()), agent=agent, actor=actor, now=NOW)
    assert verdict(organization, agent) is None
    root = TrustRoot.objects.get(organization=organization)

    switch_trust_root(
        organization_id=organization.pk,
        trust_root_id=root.pk,
        enabled=False,
        actor=actor,
        now=NOW,
    )

    assert verdict(organization, agent) == "revoked"


def test_distrusted_key(
    organization: Organization, import_files: Import, sign: Sign, agent: Agent, actor: Actor
) -> None:
    grant_card(card=sign(import_files(signed=False)), agent=agent, actor=actor, now=NOW)

    SigningKey.objects.update(retired_at=NOW, distrusted_at=NOW)

    assert verdict(organization, agent) == "unknown_key"


def test_another_organization_sees_nothing(
    organization: Organization,
    stranger: Organization,
    import_files: Import,
    sign: Sign,
    agent: Agent,
    actor: Actor,
) -> None:
    grant_card(card=sign(import_files(signed=False)), agent=agent, actor=actor, now=NOW)

    assert policy_cards(stranger) == CardPolicy(cards={}, keys=[], revoked=[], grants={})
