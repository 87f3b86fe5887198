"""The policy snapshot: what sidecars of an organization work by until its next revision."""

from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from msgspec import structs

from budgets.domain.prices import price_policies
from budgets.domain.scopes import team_of
from budgets.domain.thresholds import active_measures
from budgets.models import Budget
from controlplane.identity.domain import organization_pepper
from controlplane.identity.models import Agent, AgentKey, Organization
from enforcement.queries import draining_nodes, served_models, stopped_sessions
from enforcement.rules.policy import AgentPolicy, AgentState, CardGrant, KeyPolicy, PolicySnapshot
from skills.domain.policy import policy_cards


def compile_policy(*, organization_id: UUID, now: datetime) -> PolicySnapshot:
    """Read the policy of an organization as it stands.

    The revision is read first: whatever changes meanwhile raises it again, so a sidecar never
    holds an older policy under a newer number.
    """
    organization = Organization.objects.get(pk=organization_id)
    cards = policy_cards(organization)
    return PolicySnapshot(
        organization=str(organization_id),
        revision=organization.policy_revision,
        pepper=organization_pepper(organization_id).hex(),
        agents=_agents(organization, cards.grants),
        budgets=[
            structs.replace(budget.to_policy(), increase_url=_increase_url(budget))
            for budget in Budget.objects.filter(
                organization_id=organization_id, archived_at__isnull=True
            ).order_by("id")
        ],
        prices=price_policies(
            organization_id=organization_id, now=now, models=served_models(organization_id)
        ),
        cards=cards.cards,
        card_keys=cards.keys,
        revoked_cards=cards.revoked,
        measures=active_measures(organization_id),
        sessions=stopped_sessions(organization_id),
        draining=draining_nodes(organization_id),
    )


def _increase_url(budget: Budget) -> str:
    return settings.PUBLIC_URL + reverse("budgets:change", args=[budget.id])


def _agents(organization: Organization, grants: dict[str, list[CardGrant]]) -> list[AgentPolicy]:
    keys: dict[UUID, list[KeyPolicy]] = {}
    live = AgentKey.objects.filter(organization=organization, revoked_at__isnull=True)
    for key in live.order_by("id"):
        expires_at_ms = int(key.expires_at.timestamp() * 1000) if key.expires_at else None
        keys.setdefault(key.agent_id, []).append(
            KeyPolicy(id=str(key.pk), hash=key.key_hash, expires_at_ms=expires_at_ms)
        )
    agents = Agent.objects.select_related("project").filter(
        organization=organization, retired_at__isnull=True
    )
    return [
        AgentPolicy(
            id=str(agent.pk),
            slug=agent.slug,
            state=AgentState(agent.state),
            team=str(team) if (team := team_of(agent)) else None,
            project=str(agent.project_id) if agent.project_id else None,
            keys=keys.get(agent.pk, []),
            requires_card=organization.requires_skill_cards,
            grants=grants.get(str(agent.pk), []),
            requests_per_minute=agent.requests_per_minute,
            tokens_per_minute=agent.tokens_per_minute,
            priority=agent.priority,
            draining=agent.state_drains,
            hand_back_tokens=agent.hand_back_tokens,
        )
        for agent in agents.order_by("id")
    ]
