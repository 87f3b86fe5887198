"""Private keys at rest: sealed under a key derived from the application's secret."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from skills.errors import SigningKeyError

_NONCE_BYTES = 12


def seal(private_key: Ed25519PrivateKey, *, key_id: str) -> bytes:
    """Encrypt a private key; the box is bound to the key's id."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _box().encrypt(nonce, private_key.private_bytes_raw(), key_id.encode("ascii"))


def unseal(sealed: bytes, *, key_id: str) -> Ed25519PrivateKey:
    """Decrypt a private key.

    Raises:
        SigningKeyError: the application's secret is not the one it was sealed under.
    """
    try:
        raw = _box().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key_id.encode("ascii"))
    except (InvalidTag, ValueError):
        raise SigningKeyError("the signing key cannot be opened with this secret") from None
    return Ed25519PrivateKey.from_private_bytes(raw)


def _box() -> AESGCM:
    derive = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"skills.signing-key.v1")
    return AESGCM(derive.derive(settings.SECRET_KEY.encode("utf-8")))
