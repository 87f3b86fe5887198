"""What the policy snapshot says about skill cards."""

from typing import NamedTuple
from uuid import UUID

from django.db.models import Max

from controlplane.identity.models import Organization
from enforcement.rules.policy import CardGrant, TrustedKey
from skills.domain.grants import trusted_keys
from skills.enums import STILL_TRUSTED, CardState
from skills.models import SkillCard, SkillGrant


class CardPolicy(NamedTuple):
    """The parts of a `PolicySnapshot`. `grants` is keyed by agent id."""

    cards: dict[str, str]  # digest → envelope
    keys: list[TrustedKey]
    revoked: list[str]
    grants: dict[str, list[CardGrant]]


def policy_cards(organization: Organization | UUID) -> CardPolicy:
    """Every card with a live grant, the latest card of each of their skills, keys, grants.

    The latest ones travel along so that a sidecar knows how high revisions have risen. A card
    counts as revoked, too, when its skill is no longer what it was when the card was signed.
    """
    organization_id = organization if isinstance(organization, UUID) else organization.pk
    grants: dict[str, list[CardGrant]] = {}
    granted: dict[str, SkillCard] = {}
    live = SkillGrant.objects.filter(organization_id=organization_id, revoked_at__isnull=True)
    for grant in live.select_related("card", "card__skill").order_by("id"):
        granted[grant.card.digest] = grant.card
        wire = CardGrant(card=grant.card.digest, tools=grant.tools)
        grants.setdefault(str(grant.agent_id), []).append(wire)
    cards = granted | {card.digest: card for card in _latest_of(organization_id, granted)}
    return CardPolicy(
        cards={digest: card.envelope for digest, card in sorted(cards.items())},
        keys=trusted_keys(organization_id=organization_id),
        revoked=sorted(digest for digest, card in cards.items() if is_revoked(card)),
        grants=grants,
    )


def _latest_of(organization_id: UUID, granted: dict[str, SkillCard]) -> list[SkillCard]:
    names = {card.name for card in granted.values()}
    rows = SkillCard.objects.filter(organization_id=organization_id, name__in=names)
    tops = dict(rows.values_list("name").annotate(Max("card_rev")))
    return [card for card in rows.select_related("skill") if card.card_rev == tops[card.name]]


def is_revoked(card: SkillCard) -> bool:
    """Whether a card must not be used, by its own state or by that of its skill."""
    if card.state == CardState.REVOKED:
        return True
    return card.state == CardState.ACTIVE and card.skill.state not in STILL_TRUSTED
