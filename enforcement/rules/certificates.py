"""X.509 chains of skill publishers: read them, and check them against pinned roots.

Rules of this file:

1. The chain is built and checked by the `cryptography` package, at the caller's `now`.
2. A publisher's leaf has no extended key usage and no subject alternative name, so the web's
   leaf policy cannot apply: we ask for a critical `digitalSignature` key usage instead, and
   for a pinned subject.
3. A pin is `ATTRIBUTE=value` parts joined by commas; each must stand in the leaf's subject. A
   value that ends in `*` is a prefix.
4. Whatever the bytes, nothing but `CertificateError` is raised.
"""

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)
from msgspec import Struct

_DEPTH_MAX: Final = 2  # intermediates and root above the leaf
_ATTRIBUTES: Final = {
    "CN": NameOID.COMMON_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "C": NameOID.COUNTRY_NAME,
}


class CertificateError(Exception):
    """A certificate or chain that cannot be trusted; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OmsRoot(Struct, frozen=True):
    """A trust root that is switched on: its certificate and the leaf it may speak through."""

    pem: str
    required_subject: str


class Chain:
    """A chain as it was presented: leaf first. Nothing about it is trusted yet."""

    def __init__(
        self, certificates: Sequence[x509.Certificate], leaf_key: ec.EllipticCurvePublicKey
    ) -> None:
        self.certificates = tuple(certificates)
        self.leaf_key = leaf_key
        leaf, top = certificates[0], certificates[-1]
        self.leaf_subject = leaf.subject.rfc4514_string()
        self.leaf_serial = format(leaf.serial_number, "x")
        self.root_subject = top.subject.rfc4514_string()
        self.root_fingerprint = fingerprint_of(top)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def read_root(pem: str) -> x509.Certificate:
    """One self-signed CA certificate in PEM.

    Raises:
        CertificateError: `not_a_certificate` or `not_a_root`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = x509.load_pem_x509_certificates(pem.encode("utf-8"))
            if len(found) != 1:
                raise CertificateError("not_a_root", "a trust root is exactly one certificate")
            found[0].verify_directly_issued_by(found[0])
            constraints = found[0].extensions.get_extension_for_class(x509.BasicConstraints)
    except CertificateError:
        raise
    except x509.ExtensionNotFound:
        raise CertificateError("not_a_root", "the certificate is not of an authority") from None
    except Exception as error:  # noqa: BLE001 -- hostile DER makes the parser raise many classes
        raise CertificateError("not_a_certificate", _sentence(error)) from None
    if not constraints.value.ca:
        raise CertificateError("not_a_root", "the certificate is not of an authority")
    return found[0]


def read_chain(ders: Sequence[bytes]) -> Chain:
    """Parse a presented chain, leaf first. Raises CertificateError `certificate_malformed`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificates = [x509.load_der_x509_certificate(der) for der in ders]
            key = certificates[0].public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise CertificateError("key_unsupported", "the leaf's key is not ECDSA")
            return Chain(certificates, key)
    except CertificateError:
        raise
    except Exception as error:  # noqa: BLE001 -- hostile DER makes the parser raise many classes
        raise CertificateError("certificate_malformed", _sentence(error)) from None


def trust_chain(chain: Chain, *, roots: Sequence[OmsRoot], now: datetime) -> Chain:
    """Give the chain back if a root vouches for it now.

    Raises:
        CertificateError: `no_trust_root`, `untrusted_root`, `certificate_expired`,
            `certificate_not_yet_valid` or `subject_not_pinned`.
    """
    if not roots:
        raise CertificateError("no_trust_root", "no trust root is switched on")
    refusal = CertificateError(
        "untrusted_root", f"the chain ends in {chain.root_subject} ({chain.root_fingerprint[:16]}…)"
    )
    for root in roots:
        anchor = read_root(root.pem)
        if not _holds(chain, anchor, now):
            refusal = _outdated(chain, anchor, now) or refusal
        elif subject_matches(root.required_subject, chain.certificates[0].subject):
            return chain
        else:
            sentence = f"leaf {chain.leaf_subject} is not the pinned {root.required_subject}"
            refusal = CertificateError("subject_not_pinned", sentence)
    raise refusal


def subject_matches(pin: str, subject: x509.Name) -> bool:
    """Whether each part of a pin stands in the subject. An empty or unknown pin matches nothing."""
    parts = [part.strip().partition("=") for part in pin.split(",")]
    return all(
        name in _ATTRIBUTES and bool(value) and _has(subject, name, value)
        for name, _, value in parts
    )


def _has(subject: x509.Name, name: str, value: str) -> bool:
    texts = [str(item.value) for item in subject.get_attributes_for_oid(_ATTRIBUTES[name])]
    if value.endswith("*"):
        return any(text.startswith(value[:-1]) for text in texts)
    return value in texts


def _outdated(chain: Chain, anchor: x509.Certificate, now: datetime) -> CertificateError | None:
    """The refusal of a chain that holds at another time; None if it never holds."""
    starts = max(item.not_valid_before_utc for item in chain.certificates)
    ends = min(item.not_valid_after_utc for item in chain.certificates)
    if starts <= now <= ends or not _holds(chain, anchor, starts):
        return None
    if now > ends:
        return CertificateError("certificate_expired", f"the chain ended at {ends.isoformat()}")
    sentence = f"the chain starts at {starts.isoformat()}"
    return CertificateError("certificate_not_yet_valid", sentence)


def _holds(chain: Chain, anchor: x509.Certificate, moment: datetime) -> bool:
    leaf_policy = ExtensionPolicy.permit_all().require_present(
        x509.KeyUsage, Criticality.CRITICAL, _must_sign
    )
    builder = (
        PolicyBuilder()
        .store(Store([anchor]))
        .time(moment.astimezone(UTC).replace(tzinfo=None))
        .max_chain_depth(_DEPTH_MAX)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf_policy)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder.build_client_verifier().verify(
                chain.certificates[0], list(chain.certificates[1:])
            )
    except VerificationError:
        return False
    except Exception:  # noqa: BLE001 -- a chain that cannot be judged does not hold
        return False
    return True


def _must_sign(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    del policy, certificate
    if usage is None or not usage.digital_signature:
        raise ValueError("the leaf may not sign")


def _sentence(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
