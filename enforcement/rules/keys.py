"""Bearer secrets: `cmp_<env>_<id>_<secret><checksum>`.

1. The id is public and finds the row; the secret has 256 bits; the checksum (CRC-32 in base 62)
   tells mistyped and cut-off keys, and keys in leaked text, without asking anybody.
2. `env` says what the key is for: `live` is an agent's, `api` and `sidecar` are tokens.
3. Only the keyed hash of the whole text is stored: HMAC-SHA-256 under a pepper.
4. Comparison takes the same time whatever differs.
"""

import hashlib
import hmac
import re
import zlib
from enum import StrEnum
from typing import NamedTuple

ID_BYTES = 9
SECRET_BYTES = 32
MAX_KEY_CHARS = 128

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARS = 13  # 62¹³ > 2⁷²
_SECRET_CHARS = 43  # 62⁴³ > 2²⁵⁶
_CHECKSUM_CHARS = 6  # 62⁶ > 2³²
_SHAPE = re.compile(
    r"cmp_(?P<env>[a-z]{2,8})_(?P<id>[0-9A-Za-z]{13})_[0-9A-Za-z]{43}(?P<checksum>[0-9A-Za-z]{6})"
)


class KeyFault(StrEnum):
    """Why a text is no key of ours."""

    TOO_LONG = "too long for a key"
    FOREIGN = "does not start with cmp_"
    PARTS = "not of the form cmp_<env>_<id>_<secret>"
    LENGTH = "cut off, or with something added"
    ALPHABET = "has characters that no key has"
    CHECKSUM = "mistyped: the checksum is wrong"


class KeyFormatError(ValueError):
    """The text is no key of ours, and why. The text itself is never repeated."""

    def __init__(self, fault: KeyFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class ParsedKey(NamedTuple):
    """A well-formed key; whether it is a valid one only its hash can tell."""

    env: str
    id: str
    text: str


def make_key(*, env: str, id_bytes: bytes, secret_bytes: bytes) -> ParsedKey:
    """Build a key from 9 and 32 random bytes.

    Raises:
        ValueError: the bytes have another length, or `env` is not 2 to 8 lower-case letters.
    """
    if len(id_bytes) != ID_BYTES or len(secret_bytes) != SECRET_BYTES:
        raise ValueError(f"a key needs {ID_BYTES} and {SECRET_BYTES} random bytes")
    body = f"cmp_{env}_{_base62(id_bytes, _ID_CHARS)}_{_base62(secret_bytes, _SECRET_CHARS)}"
    return parse_key(body + _checksum(body))


def parse_key(text: str) -> ParsedKey:
    """Check the shape and the checksum of a key.

    Raises:
        KeyFormatError: it is no key of ours; `fault` says why.
    """
    if len(text) > MAX_KEY_CHARS:
        raise KeyFormatError(KeyFault.TOO_LONG)
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise KeyFormatError(_fault_of(text))
    if _checksum(text[:-_CHECKSUM_CHARS]) != match["checksum"]:
        raise KeyFormatError(KeyFault.CHECKSUM)
    return ParsedKey(match["env"], match["id"], text)


def key_hash(text: str, *, pepper: bytes) -> str:
    """The keyed hash that is stored and compared, in hex."""
    return hmac.new(pepper, text.encode(), hashlib.sha256).hexdigest()


def hash_matches(text: str, stored_hash: str, *, pepper: bytes) -> bool:
    """Whether a key has the stored hash, in constant time."""
    return hmac.compare_digest(key_hash(text, pepper=pepper), stored_hash)


def _fault_of(text: str) -> KeyFault:
    if not text.startswith("cmp_"):
        return KeyFault.FOREIGN
    parts = text.split("_")
    if len(parts) != 4 or not re.fullmatch(r"[a-z]{2,8}", parts[1]):
        return KeyFault.PARTS
    if not set(parts[2] + parts[3]) <= set(_ALPHABET):
        return KeyFault.ALPHABET
    return KeyFault.LENGTH


def _base62(data: bytes, width: int) -> str:
    number, digits = int.from_bytes(data, "big"), []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()).to_bytes(4, "big"), _CHECKSUM_CHARS)
