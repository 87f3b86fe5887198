"""A real sidecar in front of an engine: whom it refuses for their cards, and how it says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from enforcement.rules.cardformat import Capabilities, SkillIdentity, ToolCapability
from enforcement.rules.policy import CardGrant
from enforcement.rules.skillcard import card_digest
from tests.sidecar.plane import Plane
from tests.sidecar.stack import PRICE, agent, chat, in_loop, stack
from tests.skills.fixtures.make_cards import KEYS, STRANGER, payload, signed

LONG_LIVED = {"not_before": "2020-01-01T00:00:00Z", "expires": "2999-01-01T00:00:00Z"}
CAPABILITIES = Capabilities(
    tools=[ToolCapability(name="Read"), ToolCapability(name="mcp__docs__*")], denied_tools=["Shell"]
)


def card(**changes: Any) -> str:
    return signed(payload(**(LONG_LIVED | {"capabilities": CAPABILITIES} | changes)))


GOOD = card()
OLDER = card(card_rev=6)
EXPIRED = card(expires="2021-01-01T00:00:00Z")
FUTURE = card(not_before="2998-01-01T00:00:00Z")
FORGED = signed(payload(**LONG_LIVED), STRANGER)


def policy(*granted: str, more: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    cards = {card_digest(text): text for text in (*granted, *more)}
    grants = [CardGrant(card=card_digest(text)) for text in granted]
    return {
        "agents": [agent(requires_card=True, grants=grants)],
        "cards": cards,
        "card_keys": KEYS,
        **changes,
    }


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": {}}} for name in names]


async def refusal(tmp_path: Path, facts: dict[str, Any], **body: Any) -> tuple[int, str]:
    """Status of one call under a policy, and the code that its body gives ('' when it passed)."""
    plane = Plane(prices=[PRICE], **facts)
    async with stack(tmp_path, plane=plane) as world:
        status, headers, answer = await world.post(chat(max_tokens=5, **body))
        await world.quiet()
        calls = world.engine.calls
    if status == 200:
        return status, ""
    assert (headers["x-should-retry"], calls) == ("false", 0)
    return status, json.loads(answer)["error"]["code"]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (policy(GOOD), ""),
        (policy(EXPIRED, GOOD), ""),
        (policy(), "skill_card_missing"),
        (policy(GOOD, cards={}), "skill_card_missing"),
        (policy(EXPIRED), "skill_card_expired"),
        (policy(FUTURE), "skill_card_not_yet_valid"),
        (policy(FORGED), "skill_card_unknown_key"),
        (policy(GOOD, card_keys=[]), "skill_card_unknown_key"),
        (policy(GOOD, revoked_cards=[card_digest(GOOD)]), "skill_card_revoked"),
        (policy(GOOD, cards={card_digest(GOOD): GOOD[:-5]}), "skill_card_malformed"),
        (policy(OLDER, more=(GOOD,)), "skill_card_rolled_back"),
    ],
    ids=lambda value: value or "passes" if isinstance(value, str) else "",
)
@in_loop
async def test_agents(tmp_path: Path, facts: dict[str, Any], code: str) -> None:
    assert await refusal(tmp_path, facts) == (403 if code else 200, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"tools": tools("Read", "mcp__docs__search")}, ""),
        ({"tools": tools("Read", "Write")}, "skill_card_tool_not_granted"),
        ({"tools": tools("read")}, "skill_card_tool_not_granted"),
        ({"tools": tools("Reаd")}, "skill_card_tool_not_granted"),  # Cyrillic а
        ({"tools": tools("shell")}, "skill_card_tool_denied"),
        ({"tools": tools("ＳＨＥＬＬ")}, "skill_card_tool_denied"),
        ({"functions": [{"name": "Write"}]}, "skill_card_tool_not_granted"),
        ({"functions": [{"name": "Read"}]}, ""),
        (
            {"tools": [{"type": "custom", "custom": {"name": "Write"}}]},
            "skill_card_tool_not_granted",
        ),
        ({"tools": tools("Read"), "functions": [{"name": "Write"}]}, "skill_card_tool_not_granted"),
    ],
    ids=str,
)
@in_loop
async def test_tools(tmp_path: Path, body: dict[str, Any], code: str) -> None:
    assert await refusal(tmp_path, policy(GOOD), **body) == (403 if code else 200, code)


@in_loop
async def test_refusal_names_the_tool(tmp_path: Path) -> None:
    plane = Plane(prices=[PRICE], **policy(GOOD))
    async with stack(tmp_path, plane=plane) as world:
        _, _, answer = await world.post(chat(tools=tools("Write")))

    assert "no granted skill card names 'Write'" in json.loads(answer)["error"]["message"]


@in_loop
async def test_agent_that_needs_no_card(tmp_path: Path) -> None:
    facts = {"agents": [agent()]}

    assert await refusal(tmp_path, facts, tools=tools("Write")) == (200, "")


@in_loop
async def test_revocation_reaches_a_running_sidecar(tmp_path: Path) -> None:
    plane = Plane(prices=[PRICE], **policy(GOOD))
    async with stack(tmp_path, plane=plane) as world:
        before, _, _ = await world.post(chat(max_tokens=5))
        plane.change_policy(revoked_cards=[card_digest(GOOD)])
        after, answer = await _until_refused(world)

    assert (before, after) == (200, 403)
    assert json.loads(answer)["error"]["code"] == "skill_card_revoked"


@in_loop
async def test_an_older_policy_does_not_bring_an_older_card_back(tmp_path: Path) -> None:
    plane = Plane(prices=[PRICE], **policy(GOOD))
    async with stack(tmp_path, plane=plane) as world:
        plane.change_policy(**policy(OLDER))
        status, answer = await _until_refused(world)

    assert status == 403
    assert json.loads(answer)["error"]["code"] == "skill_card_rolled_back"


async def _until_refused(world: Any) -> tuple[int, bytes]:
    """The first refusal; the new policy is on its way, a few calls may still pass."""
    for _ in range(200):
        status, _, answer = await world.post(chat(max_tokens=5))
        if status != 200:
            return status, answer
    return status, answer


def test_the_cards_of_this_file_differ_only_as_their_names_say() -> None:
    digests = {card_digest(text) for text in (GOOD, OLDER, EXPIRED, FUTURE)}

    assert len(digests) == 4
    assert card_digest(GOOD) == card_digest(card(skill=_same_skill()))


def _same_skill() -> SkillIdentity:
    return SkillIdentity(name="example-skill", publisher="Example", upstream_version="1.0")
