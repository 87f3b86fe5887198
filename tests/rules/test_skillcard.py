"""Skill cards: a corpus of bad ones, one file per case, and every way to slip past a tool list."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enforcement.rules import skillcard
from enforcement.rules.cardformat import Capabilities, SkillIdentity, ToolCapability
from enforcement.rules.policy import CardGrant, TrustedKey
from enforcement.rules.skillcard import (
    MalformedCardError,
    SkillCard,
    SkillCardError,
    allows_tool,
    card_digest,
    denies_tool,
    key_id_of,
    normalised_tool,
    stamp_of,
    verify_card,
)
from tests.skills.fixtures.make_cards import (
    FOLDER,
    KEYS,
    KNOWN_REV,
    NOW_MS,
    REVOKED_CASE,
    ROOT_DIGEST,
    SIGNER,
    body,
    cases,
    payload,
    signed,
)
from tests.skills.publisher import NOW

REVOKED = [card_digest((FOLDER / f"{REVOKED_CASE}.json").read_text(encoding="utf-8"))]
CORPUS = sorted(FOLDER.glob("*.json"))


def verify(text: str, *, keys: list[TrustedKey] = KEYS, now_ms: int = NOW_MS) -> SkillCard:
    return verify_card(text, keys=keys, revoked=REVOKED, now_ms=now_ms, known_rev=KNOWN_REV)


def card_with(tools: list[str], *, denied: list[str] | None = None) -> SkillCard:
    capabilities = Capabilities(
        tools=[ToolCapability(name=name) for name in tools], denied_tools=denied or []
    )
    return verify(signed(payload(capabilities=capabilities)))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    """The file's name says what must come out."""
    expected = path.stem.split("--")[0]
    text = path.read_text(encoding="utf-8")

    if expected == "valid":
        assert verify(text).digest == card_digest(text)
    else:
        with pytest.raises(SkillCardError) as caught:
            verify(text)
        assert caught.value.code == expected


def test_corpus_is_what_the_script_makes() -> None:
    on_disk = {path.stem: path.read_text(encoding="utf-8") for path in CORPUS}

    assert on_disk == cases()


def test_every_failure_is_a_class_of_its_own() -> None:
    classes = [
        item
        for item in vars(skillcard).values()
        if isinstance(item, type) and issubclass(item, SkillCardError)
    ]

    assert len({item.code for item in classes}) == len(classes)


def test_a_verified_card_says_what_was_signed() -> None:
    card = verify(signed(payload()))

    assert (card.name, card.rev, card.root_digest) == ("example-skill", 7, ROOT_DIGEST)
    assert card.body == body()
    assert card.key_ids == (KEYS[0].key_id,)
    assert card.tools == ["Read", "mcp__docs__*"]
    assert (card.not_before_ms, card.expires_ms) == (1_793_491_200_000, 1_801_440_000_000)


@pytest.mark.parametrize(
    ("now_ms", "code"),
    [
        (1_793_491_200_000 - 1, "not_yet_valid"),
        (1_793_491_200_000, None),
        (1_801_440_000_000 - 1, None),
        (1_801_440_000_000, "expired"),
    ],
)
def test_validity_is_half_open(now_ms: int, code: str | None) -> None:
    text = signed(payload())

    if code is None:
        assert verify(text, now_ms=now_ms).rev == 7
    else:
        with pytest.raises(SkillCardError) as caught:
            verify(text, now_ms=now_ms)
        assert caught.value.code == code


def test_errors_name_the_card() -> None:
    text = signed(payload(card_rev=6))

    with pytest.raises(SkillCardError) as caught:
        verify(text)

    assert (caught.value.digest, caught.value.skill) == (card_digest(text), "example-skill")


def test_unknown_field_is_refused_by_name() -> None:
    text = (FOLDER / "unknown_field--capabilities.json").read_text(encoding="utf-8")

    with pytest.raises(SkillCardError, match="`shell`"):
        verify(text)


def test_no_keys_trust_nobody() -> None:
    with pytest.raises(SkillCardError) as caught:
        verify(signed(payload()), keys=[])
    assert caught.value.code == "unknown_key"


@pytest.mark.parametrize("public_key", ["", "zz", "00", "ff" * 32])
def test_broken_trusted_key_verifies_nothing(public_key: str) -> None:
    key_id = key_id_of(SIGNER.public_key().public_bytes_raw())

    with pytest.raises(SkillCardError) as caught:
        verify(signed(payload()), keys=[TrustedKey(key_id=key_id, public_key=public_key)])
    assert caught.value.code == "signature_invalid"


def test_what_would_not_verify_is_not_signed() -> None:
    with pytest.raises(MalformedCardError):
        payload(expires="tomorrow")
    with pytest.raises(MalformedCardError):
        payload(skill=SkillIdentity(name=""))


def test_signing_is_deterministic() -> None:
    assert signed(payload()) == signed(payload())


@settings(max_examples=200, deadline=None)
@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_flipped_bit_verifies(position: int, bit: int) -> None:
    raw = bytearray(signed(payload()).encode("ascii"))
    raw[position % len(raw)] ^= 1 << bit

    with pytest.raises(SkillCardError):
        verify(raw.decode("latin-1"))


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example('{"payload":"\\ud800"}')
@example("\ud800")
@example("1" * 5_000)
@example(" " * 300_000)
def test_hostile_text_raises_our_errors_only(text: str) -> None:
    with pytest.raises(SkillCardError):
        verify(text)


# ---------------------------------------------------------------------------- tools


@pytest.mark.parametrize(
    ("tool", "allowed"),
    [
        ("Read", True),
        ("read", False),
        ("READ", False),
        ("Read ", False),
        ("Ｒead", False),
        ("Reаd", False),  # Cyrillic а
        ("Reader", False),
        ("mcp__docs__search", True),
        ("mcp__docs__", True),
        ("mcp__doc", False),
        ("", False),
    ],
)
def test_allow_is_exact(tool: str, allowed: bool) -> None:
    card = card_with(["Read", "mcp__docs__*"])

    assert allows_tool(card, CardGrant(card=card.digest), tool) is allowed


@pytest.mark.parametrize(
    "tool",
    [
        "Delete_File",
        "delete_file",
        "DELETE-FILE",
        "delete.file",
        "deleteFile",
        "ｄｅｌｅｔｅ＿ｆｉｌｅ",
        "delete\u200b_file",
        "de\u00adlete file",
        "delete_ﬁle",
    ],
)
def test_deny_beats_allow_under_any_spelling(tool: str) -> None:
    card = card_with(["*"], denied=["Delete_File"])

    assert denies_tool(card, tool)
    assert not allows_tool(card, CardGrant(card=card.digest), tool)


def test_denied_prefix() -> None:
    card = card_with(["*"], denied=["shell_*"])

    assert denies_tool(card, "Shell-Exec")
    assert not denies_tool(card, "read_shell")


def test_grant_narrows_and_never_widens() -> None:
    card = card_with(["Read", "Bash"])
    grant = CardGrant(card=card.digest, tools=["Read", "Write"])

    allowed = [tool for tool in ("Read", "Bash", "Write") if allows_tool(card, grant, tool)]

    assert allowed == ["Read"]


def test_empty_grant_allows_nothing() -> None:
    card = card_with(["Read"])

    assert not allows_tool(card, CardGrant(card=card.digest, tools=[]), "Read")


def test_grant_of_another_card_allows_nothing() -> None:
    assert not allows_tool(card_with(["Read"]), CardGrant(card="00" * 32), "Read")


@given(name=st.text())
def test_normalised_names_are_stable(name: str) -> None:
    assert normalised_tool(normalised_tool(name)) == normalised_tool(name)


def test_stamps_are_utc_seconds() -> None:
    assert stamp_of(NOW) == "2026-11-20T12:00:00Z"


def test_key_ids_differ() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"x" * 32).public_key().public_bytes_raw()

    assert key_id_of(other) != KEYS[0].key_id
