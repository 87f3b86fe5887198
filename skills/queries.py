"""Reads shared by the API and the pages."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db.models import Count, Max, Q, QuerySet

from enforcement.rules.policy import TrustedKey
from enforcement.rules.skillcard import SkillCard as OpenedCard
from enforcement.rules.skillcard import SkillCardError, check_card, open_card
from skills.domain.grants import trusted_keys
from skills.domain.policy import is_revoked
from skills.models import Skill, SkillCard, SkillGrant

_LIVE = Q(grants__revoked_at__isnull=True)


class Verdict(NamedTuple):
    """What a sidecar would make of a card now: `valid`, or the code of the refusal."""

    code: str
    message: str


def newest_cards(skills: Iterable[Skill]) -> dict[UUID, SkillCard]:
    """The newest card of each skill that has one, by the skill's id, with its `agents`."""
    rows = SkillCard.objects.filter(skill__in=list(skills)).select_related("skill")
    newest = rows.order_by("skill_id", "-card_rev").distinct("skill_id")
    counted = _with_agents(rows.filter(id__in=[card.id for card in newest]))
    return {card.skill_id: card for card in counted}


def cards_of(organization_id: UUID) -> QuerySet[SkillCard]:
    """Cards with their skill and the number of agents that may use them."""
    rows = SkillCard.objects.filter(organization_id=organization_id)
    return _with_agents(rows.select_related("skill", "key"))


def _with_agents(rows: QuerySet[SkillCard]) -> QuerySet[SkillCard]:
    return rows.annotate(agents=Count("grants", filter=_LIVE))


def live_grants(card: SkillCard) -> QuerySet[SkillGrant]:
    rows = SkillGrant.objects.filter(card=card, revoked_at__isnull=True)
    return rows.select_related("agent").order_by("agent__slug")


class Judge:
    """Gives verdicts on many cards of one organization with two queries in all."""

    def __init__(self, organization_id: UUID, *, now: datetime) -> None:
        self._keys: list[TrustedKey] = trusted_keys(organization_id=organization_id)
        rows = SkillCard.objects.filter(organization_id=organization_id).order_by()
        self._known: dict[str, int] = dict(rows.values_list("name").annotate(Max("card_rev")))
        self._now_ms = int(now.timestamp()) * 1000

    def open(self, card: SkillCard) -> OpenedCard | None:
        """The signed card, whatever its standing; None if its signature does not hold."""
        try:
            return open_card(card.envelope, keys=self._keys)
        except SkillCardError:
            return None

    def verdict(self, card: SkillCard) -> Verdict:
        """`card.skill` should be loaded."""
        revoked = [card.digest] if is_revoked(card) else []
        try:
            opened = open_card(card.envelope, keys=self._keys)
            check_card(opened, revoked=revoked, now_ms=self._now_ms, known_rev=self._known)
        except SkillCardError as error:
            return Verdict(error.code, str(error))
        return Verdict("valid", f"valid until {opened.body.expires}")


def verify_command(card: SkillCard) -> str:
    """What an auditor types to check the downloaded card without us."""
    return f"comptroller cards verify {file_name(card)} --key {card.key.public_key}"


def file_name(card: SkillCard) -> str:
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in card.name)
    return f"{plain}-r{card.card_rev}.card.json"


def skill_names(organization_id: UUID) -> Iterable[str]:
    """The names that calls may claim and budgets filter on."""
    return Skill.objects.filter(organization_id=organization_id).values_list("name", flat=True)
