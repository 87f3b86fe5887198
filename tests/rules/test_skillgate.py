"""The sidecar's question: may this agent call, with these tools, and if not, why."""

import pytest

from enforcement.rules.cardformat import Capabilities, SkillIdentity, ToolCapability
from enforcement.rules.policy import AgentPolicy, CardGrant, PolicySnapshot, TrustedKey
from enforcement.rules.skillcard import card_digest
from enforcement.rules.skillgate import CardDenial, CardGate
from tests.skills.fixtures.make_cards import KEYS, NOW_MS, STRANGER, payload, signed

READ = signed(payload(capabilities=Capabilities(tools=[ToolCapability(name="Read")])))
WRITE = signed(
    payload(
        skill=SkillIdentity(name="writer"),
        capabilities=Capabilities(tools=[ToolCapability(name="Write")], denied_tools=["Shell"]),
    )
)
OLDER = signed(payload(card_rev=6))
EXPIRED = signed(payload(skill=SkillIdentity(name="old"), expires="2026-11-20T00:00:00Z"))
FORGED = signed(payload(skill=SkillIdentity(name="forged")), STRANGER)


def policy(
    *envelopes: str, revoked: list[str] | None = None, keys: list[TrustedKey] = KEYS
) -> PolicySnapshot:
    return PolicySnapshot(
        organization="o",
        revision=1,
        cards={card_digest(text): text for text in envelopes},
        card_keys=keys,
        revoked_cards=revoked or [],
    )


def agent(*envelopes: str, requires_card: bool = True) -> AgentPolicy:
    grants = [CardGrant(card=card_digest(text)) for text in envelopes]
    return AgentPolicy(id="a", slug="a", requires_card=requires_card, grants=grants)


def ask(gate: CardGate, who: AgentPolicy, *tools: str) -> tuple[str, tuple[str, ...]] | None:
    denial = gate.deny(who, tools, now_ms=NOW_MS)
    return None if denial is None else (denial.code, denial.tools)


def test_covered_agent_may_use_the_tools_of_its_card() -> None:
    gate = CardGate(policy(READ))

    assert ask(gate, agent(READ)) is None
    assert ask(gate, agent(READ), "Read") is None
    assert ask(gate, agent(READ), "Read", "Write") == ("tool_not_granted", ("Write",))


def test_agent_without_requirement_is_not_asked() -> None:
    assert ask(CardGate(policy()), agent(requires_card=False), "Shell") is None


def test_agent_without_grant_is_refused() -> None:
    assert CardGate(policy(READ)).deny(agent(), (), now_ms=NOW_MS) == CardDenial(
        "missing", "this agent needs a skill card and has none"
    )


@pytest.mark.parametrize(
    ("envelope", "code"),
    [(EXPIRED, "expired"), (FORGED, "unknown_key")],
)
def test_bad_card_names_its_cause(envelope: str, code: str) -> None:
    denial = CardGate(policy(envelope)).deny(agent(envelope), (), now_ms=NOW_MS)

    assert denial is not None
    assert (denial.code, denial.card) == (code, card_digest(envelope))


def test_granted_card_that_the_policy_lacks() -> None:
    assert ask(CardGate(policy()), agent(READ)) == ("missing", ())


def test_revoked_card() -> None:
    assert ask(CardGate(policy(READ, revoked=[card_digest(READ)])), agent(READ)) == ("revoked", ())


def test_broken_card_is_malformed() -> None:
    digest = card_digest(READ)
    broken = PolicySnapshot(organization="o", revision=1, cards={digest: READ[:-9]}, card_keys=KEYS)

    assert ask(CardGate(broken), agent(READ)) == ("malformed", ())


def test_card_filed_under_another_digest_is_missing() -> None:
    swapped = PolicySnapshot(
        organization="o", revision=1, cards={card_digest(READ): WRITE}, card_keys=KEYS
    )

    assert ask(CardGate(swapped), agent(READ)) == ("missing", ())


def test_older_revision_is_rolled_back_when_the_newer_is_known() -> None:
    assert ask(CardGate(policy(OLDER)), agent(OLDER), "Read") is None
    assert ask(CardGate(policy(OLDER, READ)), agent(OLDER), "Read") == ("rolled_back", ())


def test_known_revisions_outlive_the_policy_that_brought_them() -> None:
    first = CardGate(policy(READ))
    second = CardGate(policy(OLDER), previous=first)

    assert ask(second, agent(OLDER)) == ("rolled_back", ())


def test_one_valid_card_covers_and_the_bad_one_lends_no_tools() -> None:
    gate = CardGate(policy(EXPIRED, READ))
    who = agent(EXPIRED, READ)

    assert ask(gate, who, "Read") is None
    assert ask(gate, who, "mcp__docs__x") == ("tool_not_granted", ("mcp__docs__x",))


def test_tools_of_several_cards_add_up_and_any_denial_wins() -> None:
    gate = CardGate(policy(READ, WRITE))
    who = agent(READ, WRITE)

    assert ask(gate, who, "Read", "Write") is None
    assert ask(gate, who, "Read", "sh-ell") == ("tool_denied", ("sh-ell",))


def test_grant_narrows_the_card() -> None:
    gate = CardGate(policy(READ))
    who = AgentPolicy(
        id="a",
        slug="a",
        requires_card=True,
        grants=[CardGrant(card=card_digest(READ), tools=[])],
    )

    assert ask(gate, who) is None
    assert ask(gate, who, "Read") == ("tool_not_granted", ("Read",))


def test_sentence_lists_at_most_five_tools() -> None:
    denial = CardGate(policy(READ)).deny(agent(READ), list("abcdefg"), now_ms=NOW_MS)

    assert denial is not None
    assert denial.message == ("no granted skill card names 'a', 'b', 'c', 'd', 'e' and 2 more")


def test_time_is_judged_at_every_request() -> None:
    gate = CardGate(policy(READ))

    before = gate.deny(agent(READ), (), now_ms=1_801_440_000_000 - 1)
    after = gate.deny(agent(READ), (), now_ms=1_801_440_000_000)

    assert (before, after and after.code) == (None, "expired")
