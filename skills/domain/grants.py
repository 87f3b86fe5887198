"""Who may use which card."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from controlplane.identity.models import Agent
from enforcement.rules.policy import TrustedKey
from enforcement.rules.skillcard import SkillCardError, open_card
from skills.enums import CardState
from skills.errors import (
    AlreadyGrantedError,
    AlreadyRevokedError,
    CardNotGrantableError,
)
from skills.models import SigningKey, SkillCard, SkillGrant


def trusted_keys(*, organization_id: UUID) -> list[TrustedKey]:
    """The keys whose cards count for this organization."""
    rows = SigningKey.objects.filter(organization_id=organization_id, distrusted_at__isnull=True)
    return [TrustedKey(key_id=row.key_id, public_key=row.public_key) for row in rows.order_by("id")]


@transaction.atomic
def grant_card(
    *,
    card: SkillCard,
    agent: Agent,
    tools: Sequence[str] | None = None,
    actor: Actor,
    reason: str = "",
    now: datetime,
) -> SkillGrant:
    """Let an agent use a card, or some of its tools.

    Raises:
        CardNotGrantableError: the card is not active or has expired, belongs to another
            organization, or does not name one of the tools.
        AlreadyGrantedError: the agent has a live grant of this card.
    """
    row = SkillCard.objects.select_for_update().get(pk=card.pk)
    _check_grantable(row, agent, tools, now)
    grant = _create(row, agent, tools, actor=actor, reason=reason, now=now)
    bump_policy(row.organization_id)
    return grant


@transaction.atomic
def revoke_grant(*, grant: SkillGrant, actor: Actor, reason: str = "", now: datetime) -> SkillGrant:
    """Take a grant back; final."""
    row = SkillGrant.objects.select_for_update(of=("self",)).select_related("card").get(pk=grant.pk)
    if row.revoked_at is not None:
        raise AlreadyRevokedError("this grant was revoked before")
    _revoke(row, actor=actor, reason=reason, now=now)
    bump_policy(row.organization_id)
    return row


def move_grants(*, old: SkillCard, new: SkillCard, actor: Actor, now: datetime) -> None:
    """Carry live grants over to the next revision, narrowed to tools that it still names."""
    live = SkillGrant.objects.select_for_update().filter(card=old, revoked_at__isnull=True)
    named = _tool_names(new)
    for grant in live.select_related("agent").order_by("id"):
        tools = None if grant.tools is None else [tool for tool in grant.tools if _in(tool, named)]
        reason = f"carried over to revision {new.card_rev}"
        _revoke(grant, actor=actor, reason=reason, now=now)
        _create(new, grant.agent, tools, actor=actor, reason=reason, now=now)


def _check_grantable(
    card: SkillCard, agent: Agent, tools: Sequence[str] | None, now: datetime
) -> None:
    if agent.organization_id != card.organization_id:
        raise CardNotGrantableError("the agent belongs to another organization")
    if card.state != CardState.ACTIVE:
        raise CardNotGrantableError(f"card {card} is {card.get_state_display().lower()}")
    if card.expires <= now:
        raise CardNotGrantableError(f"card {card} has expired")
    named = _tool_names(card)
    foreign = [tool for tool in tools or () if not _in(tool, named)]
    if foreign:
        raise CardNotGrantableError(f"card {card} does not name: {', '.join(foreign)}")


def _tool_names(card: SkillCard) -> list[str]:
    try:
        opened = open_card(card.envelope, keys=trusted_keys(organization_id=card.organization_id))
    except SkillCardError as error:
        raise CardNotGrantableError(f"card {card} does not verify: {error}") from None
    return opened.tools


def _in(tool: str, named: Sequence[str]) -> bool:
    """Whether a tool, or a narrower `prefix*`, lies within the names of a card."""
    return any(tool.startswith(name[:-1]) if name.endswith("*") else tool == name for name in named)


def _create(
    card: SkillCard,
    agent: Agent,
    tools: Sequence[str] | None,
    *,
    actor: Actor,
    reason: str,
    now: datetime,
) -> SkillGrant:
    try:
        with transaction.atomic():
            grant = SkillGrant.objects.create(
                organization_id=card.organization_id,
                agent=agent,
                card=card,
                tools=None if tools is None else list(tools),
                reason=reason,
                granted_by=actor.label[:200],
                created_at=now,
            )
    except IntegrityError:
        raise AlreadyGrantedError(f"{agent} may use card {card} already") from None
    _record(grant, "skill_grant.create", actor, reason, now)
    return grant


def _revoke(grant: SkillGrant, *, actor: Actor, reason: str, now: datetime) -> None:
    grant.revoked_at = now
    grant.revoked_by = actor.label[:200]
    grant.revoke_reason = reason
    grant.save(update_fields=["revoked_at", "revoked_by", "revoke_reason"])
    _record(grant, "skill_grant.revoke", actor, reason, now)


def _record(grant: SkillGrant, action: str, actor: Actor, reason: str, now: datetime) -> None:
    facts = {
        "agent": str(grant.agent_id),
        "card": str(grant.card_id),
        "tools": grant.tools,
    }
    revoked = grant.revoked_at is not None
    record(
        organization_id=grant.organization_id,
        actor=actor,
        action=action,
        object_kind="skill_grant",
        object_id=str(grant.id),
        reason=reason,
        before=facts if revoked else None,
        after=None if revoked else facts,
        now=now,
    )
