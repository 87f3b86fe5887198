"""Skill cards: signed statements of what a skill is, may do, and may spend.

A card is a DSSE envelope around an in-toto statement whose subject is the root digest of a
skill's files; so a publisher's files stay untouched, and identity, revision, expiry,
capabilities and budget are bound by our own Ed25519 signature. Rules of this file:

1. `verify_card` returns a verified card or raises. Bytes that were not verified have no methods.
2. The order is fixed: shape, trusted key, signature, statement, revoked, time, rollback. Nothing
   of the payload is looked at before its signature holds.
3. The payload must be its own RFC 8785 form: integers, strings, lists and objects, one text per
   card. Unknown fields are refused by name.
4. A card is valid in `[not_before, expires)`.
5. Of one skill only the highest known revision counts; an older one is rolled back.
6. A tool is allowed by its exact name (or a `prefix*` that the card spells out) and denied by
   its normalised name: case, width and separators do not help to slip past a denial.
"""

import base64
import hashlib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from enforcement.rules.cardformat import (
    PREDICATE_TYPE,
    CardBody,
    CardBudget,
    CardSubject,
    Sha256,
    Statement,
)
from enforcement.rules.dsse import (
    IN_TOTO_TYPE,
    STATEMENT_TYPE,
    DsseError,
    Envelope,
    convert,
    decode_base64,
    load_json,
    pae,
    parse_envelope,
)
from enforcement.rules.policy import CardGrant, TrustedKey

ENVELOPE_BYTES_MAX: Final = 256 * 1024
SIGNATURES_MAX: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# ---------------------------------------------------------------------------- errors


class SkillCardError(Exception):
    """A card that must not be used. `code` is stable, the sentence is for people."""

    code = "invalid"

    def __init__(self, message: str, *, digest: str = "", skill: str = "") -> None:
        super().__init__(message)
        self.digest = digest
        self.skill = skill


class MalformedCardError(SkillCardError):
    code = "malformed"


class DuplicateKeyError(SkillCardError):
    code = "duplicate_key"


class UnknownFieldError(SkillCardError):
    code = "unknown_field"


class UnsupportedCardError(SkillCardError):
    code = "unsupported"


class UnknownKeyError(SkillCardError):
    code = "unknown_key"


class SignatureInvalidError(SkillCardError):
    code = "signature_invalid"


class CardRevokedError(SkillCardError):
    code = "revoked"


class CardNotYetValidError(SkillCardError):
    code = "not_yet_valid"


class CardExpiredError(SkillCardError):
    code = "expired"


class CardRolledBackError(SkillCardError):
    code = "rolled_back"


_BY_CODE: Final[dict[str, type[SkillCardError]]] = {
    kind.code: kind
    for kind in (MalformedCardError, DuplicateKeyError, UnknownFieldError, UnsupportedCardError)
}


# ---------------------------------------------------------------------------- the card


class SkillCard(Struct, frozen=True):
    """A card whose signature holds. Only this module makes one."""

    digest: str  # sha256 of the signed payload, hex: the card's name everywhere
    key_ids: tuple[str, ...]  # trusted keys that signed it
    root_digest: str
    body: CardBody
    not_before_ms: int
    expires_ms: int

    @property
    def name(self) -> str:
        return self.body.skill.name

    @property
    def rev(self) -> int:
        return self.body.card_rev

    @property
    def tools(self) -> list[str]:
        return [tool.name for tool in self.body.capabilities.tools]

    @property
    def budget(self) -> CardBudget:
        return self.body.budget


# ---------------------------------------------------------------------------- signing


def key_id_of(public_key: bytes) -> str:
    """The id of an Ed25519 key: SHA-256 of its 32 raw bytes, hex."""
    return hashlib.sha256(public_key).hexdigest()


def stamp_of(moment: datetime) -> str:
    """A moment as cards write it: UTC, whole seconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def statement_bytes(*, root_digest: str, body: CardBody) -> bytes:
    """The canonical bytes that are signed for this card.

    Raises:
        MalformedCardError: a field breaks its limits; its name is in the message.
    """
    statement = Statement(
        type_=STATEMENT_TYPE,
        subject=[CardSubject(name=body.skill.name, digest=Sha256(sha256=root_digest))],
        predicate_type=PREDICATE_TYPE,
        predicate=body,
    )
    try:
        payload = rfc8785.dumps(msgspec.to_builtins(statement))
    except rfc8785.CanonicalizationError as error:
        raise MalformedCardError(f"the card cannot be written: {error}") from None
    _read_statement(payload)  # what we would not accept we do not sign
    return payload


def sign_statement(payload: bytes, *, private_keys: Sequence[Ed25519PrivateKey]) -> str:
    """Wrap canonical statement bytes into a signed envelope, as JSON text."""
    signed = pae(IN_TOTO_TYPE, payload)
    return rfc8785.dumps(
        {
            "payload": _base64(payload),
            "payloadType": IN_TOTO_TYPE,
            "signatures": [
                {
                    "keyid": key_id_of(key.public_key().public_bytes_raw()),
                    "sig": _base64(key.sign(signed)),
                }
                for key in private_keys
            ],
        }
    ).decode("ascii")


# ---------------------------------------------------------------------------- verifying


def card_digest(envelope_text: str) -> str:
    """The digest of a card: SHA-256 of the payload, hex. Says nothing about its validity."""
    try:
        _, payload = _read_envelope(envelope_text)
    except DsseError as error:
        raise _card_error(error) from None
    return hashlib.sha256(payload).hexdigest()


def verify_card(
    envelope_text: str,
    *,
    keys: Sequence[TrustedKey],
    revoked: Collection[str],
    now_ms: int,
    known_rev: Mapping[str, int] | None = None,
) -> SkillCard:
    """Check everything about a card and return it.

    Args:
        envelope_text: the DSSE envelope as JSON text, from anywhere.
        keys: who may sign cards.
        revoked: digests of cards that must no longer be used.
        now_ms: wall clock, milliseconds since 1970.
        known_rev: highest revision seen so far of each skill, by skill name.

    Raises:
        SkillCardError: a subclass names the cause; its `code` is stable.
    """
    card = open_card(envelope_text, keys=keys)
    check_card(card, revoked=revoked, now_ms=now_ms, known_rev=known_rev)
    return card


def open_card(envelope_text: str, *, keys: Sequence[TrustedKey]) -> SkillCard:
    """Check shape and signature: what holds for ever, so that callers may keep the result."""
    try:
        envelope, payload = _read_envelope(envelope_text)
    except DsseError as error:
        raise _card_error(error) from None
    digest = hashlib.sha256(payload).hexdigest()
    try:
        signers = _verified_signers(envelope, payload, keys)
        statement = _read_statement(payload)
    except DsseError as error:
        raise _card_error(error, digest=digest) from None
    except SkillCardError as error:
        error.digest = digest
        raise
    body = statement.predicate
    return SkillCard(
        digest=digest,
        key_ids=signers,
        root_digest=statement.subject[0].digest.sha256,
        body=body,
        not_before_ms=_stamp_ms(body.not_before),
        expires_ms=_stamp_ms(body.expires),
    )


def check_card(
    card: SkillCard,
    *,
    revoked: Collection[str],
    now_ms: int,
    known_rev: Mapping[str, int] | None = None,
) -> None:
    """Judge an opened card at a moment: revoked, time, rollback, in this order."""
    where = {"digest": card.digest, "skill": card.name}
    label = f"card {card.name} revision {card.rev}"
    if card.digest in revoked:
        raise CardRevokedError(f"{label} was revoked", **where)
    if now_ms < card.not_before_ms:
        raise CardNotYetValidError(f"{label} is valid from {card.body.not_before}", **where)
    if now_ms >= card.expires_ms:
        raise CardExpiredError(f"{label} expired at {card.body.expires}", **where)
    known = 0 if known_rev is None else known_rev.get(card.name, 0)
    if card.rev < known:
        raise CardRolledBackError(f"{label} is older than the known revision {known}", **where)


def _read_envelope(envelope_text: str) -> tuple[Envelope, bytes]:
    if len(envelope_text) > ENVELOPE_BYTES_MAX:
        raise DsseError("malformed", f"the card is larger than {ENVELOPE_BYTES_MAX} bytes")
    envelope, payload = parse_envelope(load_json(envelope_text, what="card"), what="card")
    if not 1 <= len(envelope.signatures) <= SIGNATURES_MAX:
        raise DsseError("malformed", f"a card carries 1 to {SIGNATURES_MAX} signatures")
    if len({signature.keyid for signature in envelope.signatures}) != len(envelope.signatures):
        raise DsseError("malformed", "two signatures of the card name the same key")
    return envelope, payload


def _verified_signers(
    envelope: Envelope, payload: bytes, keys: Sequence[TrustedKey]
) -> tuple[str, ...]:
    """Every signature by a trusted key must hold, and there must be one."""
    trusted = {key.key_id: key.public_key for key in keys}
    signed = pae(envelope.payload_type, payload)
    signers = []
    for signature in envelope.signatures:
        public_key = trusted.get(signature.keyid or "")
        if public_key is None:
            continue
        raw = decode_base64(signature.sig, what="signature of card")
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(raw, signed)
        except (InvalidSignature, ValueError):
            raise SignatureInvalidError(
                f"the signature of key {(signature.keyid or '')[:16]} does not hold"
            ) from None
        signers.append(signature.keyid or "")
    if not signers:
        raise UnknownKeyError("no trusted key signed this card")
    return tuple(signers)


def _read_statement(payload: bytes) -> Statement:
    """The statement in canonical bytes. Raises DsseError or MalformedCardError."""
    try:
        value = load_json(payload, what="card payload")
        statement = convert(value, Statement, what="card payload")
    except DsseError as error:
        raise _card_error(error) from None
    if statement.type_ != STATEMENT_TYPE or statement.predicate_type != PREDICATE_TYPE:
        raise UnsupportedCardError(f"predicate type {statement.predicate_type!r} is not a card")
    try:
        canonical = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError):
        canonical = b""
    if canonical != payload:
        raise MalformedCardError("the payload is not in RFC 8785 form")
    body = statement.predicate
    if statement.subject[0].name != body.skill.name:
        raise MalformedCardError("the subject and the skill have different names")
    if _stamp_ms(body.not_before) >= _stamp_ms(body.expires):
        raise MalformedCardError("not_before must be before expires")
    return statement


def _card_error(error: DsseError, *, digest: str = "") -> SkillCardError:
    return _BY_CODE.get(error.code, MalformedCardError)(str(error), digest=digest)


def _stamp_ms(stamp: str) -> int:
    try:
        moment = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise MalformedCardError(f"{stamp!r} is not a moment") from None
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


# ---------------------------------------------------------------------------- tools


def allows_tool(card: SkillCard, grant: CardGrant, tool_name: str) -> bool:
    """Whether this card, as granted, names the tool and does not deny it."""
    if grant.card != card.digest or denies_tool(card, tool_name):
        return False
    if not _named(card.tools, tool_name):
        return False
    return grant.tools is None or _named(grant.tools, tool_name)


def denies_tool(card: SkillCard, tool_name: str) -> bool:
    """Whether the card denies the tool under any spelling that a model may take for it."""
    denied = card.body.capabilities.denied_tools
    if not denied:
        return False
    wanted = normalised_tool(tool_name)
    return any(
        wanted.startswith(normalised_tool(name[:-1]))
        if name.endswith("*")
        else wanted == normalised_tool(name)
        for name in denied
    )


def normalised_tool(name: str) -> str:
    """A tool's name without what a reader may overlook: width, case, separators, invisibles."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(character for character in folded if character.isalnum())


def _named(patterns: Sequence[str], tool_name: str) -> bool:
    return any(
        tool_name.startswith(pattern[:-1]) if pattern.endswith("*") else tool_name == pattern
        for pattern in patterns
    )
