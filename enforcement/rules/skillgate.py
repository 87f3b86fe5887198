"""The sidecar's question about skill cards: may this agent call, with these tools?

Rules of this file:

1. A gate is built once per policy revision: signatures are checked then. Revocation, time and
   rollback are judged at every request, at the caller's `now_ms`.
2. Revisions only rise: a gate built after another one knows every revision that one knew, so
   an old policy cannot bring an old card back.
3. An agent is covered if one granted card is valid. A tool passes if one valid card, as
   granted, names it and no valid granted card denies it.
4. An agent that needs no card is not asked about its tools.
"""

from collections.abc import Collection, Sequence
from typing import Final

from msgspec import Struct

from enforcement.rules.policy import AgentPolicy, CardGrant, PolicySnapshot
from enforcement.rules.skillcard import (
    SkillCard,
    SkillCardError,
    allows_tool,
    check_card,
    denies_tool,
    open_card,
)

MISSING: Final = "missing"
NOT_GRANTED: Final = "not_granted"
TOOL_NOT_GRANTED: Final = "tool_not_granted"
TOOL_DENIED: Final = "tool_denied"


class CardDenial(Struct, frozen=True):
    """Why a call is refused (403). `code` is the cause, from here or from `SkillCardError`."""

    code: str
    message: str
    card: str = ""
    tools: tuple[str, ...] = ()


class CardGate:
    """The cards of one policy revision, opened. State: `known_rev`, which only rises."""

    def __init__(self, policy: PolicySnapshot, *, previous: "CardGate | None" = None) -> None:
        self.known_rev: dict[str, int] = dict(previous.known_rev) if previous else {}
        self._revoked: Collection[str] = frozenset(policy.revoked_cards)
        self._opened: dict[str, SkillCard | SkillCardError] = {}
        for digest, envelope in policy.cards.items():
            opened = _opened(digest, envelope, policy)
            self._opened[digest] = opened
            if isinstance(opened, SkillCard):
                known = self.known_rev.get(opened.name, 0)
                self.known_rev[opened.name] = max(known, opened.rev)

    def deny(
        self, agent: AgentPolicy, tools: Sequence[str], *, skill: str = "", now_ms: int
    ) -> CardDenial | None:
        """Why this agent may not make this call, for the skill it names; None when it may."""
        if not agent.requires_card:
            return None
        valid: list[tuple[SkillCard, CardGrant]] = []
        refused: CardDenial | None = None
        for grant in agent.grants:
            card = self._judged(grant, now_ms=now_ms)
            if isinstance(card, SkillCard):
                valid.append((card, grant))
            elif refused is None:
                refused = CardDenial(card.code, str(card), card=grant.card)
        if valid and skill and all(card.name != skill for card, _ in valid):
            return CardDenial(NOT_GRANTED, f"this agent has no card of skill {skill!r}")
        if valid:
            return _deny_tools(valid, tools)
        return refused or CardDenial(MISSING, "this agent needs a skill card and has none")

    def _judged(self, grant: CardGrant, *, now_ms: int) -> SkillCard | SkillCardError:
        opened = self._opened.get(grant.card)
        if opened is None:
            return MissingCardError(f"the granted card {grant.card[:16]} is not in the policy")
        if isinstance(opened, SkillCardError):
            return opened
        try:
            check_card(opened, revoked=self._revoked, now_ms=now_ms, known_rev=self.known_rev)
        except SkillCardError as error:
            return error
        return opened


class MissingCardError(SkillCardError):
    code = MISSING


def _opened(digest: str, envelope: str, policy: PolicySnapshot) -> SkillCard | SkillCardError:
    try:
        card = open_card(envelope, keys=policy.card_keys)
    except SkillCardError as error:
        return error
    if card.digest != digest:
        return MissingCardError(f"the policy files card {card.digest[:16]} under {digest[:16]}")
    return card


def _deny_tools(
    valid: Sequence[tuple[SkillCard, CardGrant]], tools: Sequence[str]
) -> CardDenial | None:
    denied = tuple(tool for tool in tools if any(denies_tool(card, tool) for card, _ in valid))
    if denied:
        return CardDenial(TOOL_DENIED, f"a skill card denies {_listed(denied)}", tools=denied)
    missing = tuple(
        tool for tool in tools if not any(allows_tool(card, grant, tool) for card, grant in valid)
    )
    if missing:
        sentence = f"no granted skill card names {_listed(missing)}"
        return CardDenial(TOOL_NOT_GRANTED, sentence, tools=missing)
    return None


def _listed(tools: Sequence[str]) -> str:
    shown = ", ".join(repr(tool[:80]) for tool in tools[:5])
    return shown if len(tools) <= 5 else f"{shown} and {len(tools) - 5} more"
