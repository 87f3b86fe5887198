"""A publisher for tests: its own certificate chain, and OMS bundles signed under it.

Everything is made by the `cryptography` package alone, so that the verifier under test and the
signer share no code but the standard.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enforcement.rules.certificates import OmsRoot

STARTS = datetime(2026, 4, 1, tzinfo=UTC)
ENDS = datetime(2028, 4, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PIN = "CN=Example Skill Signing *,O=Example Publisher"
IGNORED = [".github", ".git", ".gitattributes", ".gitignore"]

FILES = {
    "SKILL.md": b"---\nname: example-skill\ndescription: Says hello.\nversion: 1.0.0\n"
    b"allowed-tools: Read Bash\n---\n\nSay hello.\n",
    "references/greetings.md": b"Hello, good day.\n",
    "scripts/hello.sh": b"#!/bin/sh\necho hello\n",
}


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Root, intermediate and leaf; `sign` makes the bytes of a `skill.oms.sig`."""

    root: x509.Certificate
    intermediate: x509.Certificate
    leaf: x509.Certificate
    leaf_key: ec.EllipticCurvePrivateKey

    @property
    def root_pem(self) -> str:
        return self.root.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def trust(self, pin: str = PIN) -> OmsRoot:
        return OmsRoot(pem=self.root_pem, required_subject=pin)

    def sign(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        change: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> bytes:
        """Sign files; `change` edits the statement before it is signed."""
        statement = statement_of(name, files)
        change(statement)
        payload = json.dumps(statement).encode("utf-8")
        return self.bundle(payload)

    def bundle(self, payload: bytes) -> bytes:
        kind = "application/vnd.in-toto+json"
        signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
        small = isinstance(self.leaf_key.curve, ec.SECP256R1)
        algorithm = hashes.SHA256() if small else hashes.SHA384()
        signature = self.leaf_key.sign(signed, ec.ECDSA(algorithm))
        chain = [self.leaf, self.intermediate, self.root]
        document = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "x509CertificateChain": {
                    "certificates": [
                        {"rawBytes": b64(item.public_bytes(serialization.Encoding.DER))}
                        for item in chain
                    ]
                },
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": b64(payload),
                "payloadType": kind,
                "signatures": [{"sig": b64(signature), "keyid": ""}],
            },
        }
        return json.dumps(document).encode("utf-8")


def statement_of(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The in-toto statement that OMS v1.0 makes of files."""
    digests = hash_files(files)
    root = hashlib.sha256(b"".join(bytes.fromhex(digests[path]) for path in sorted(digests)))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": root.hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": IGNORED,
            },
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digests[path]}
                for path in sorted(digests)
            ],
        },
    }


def hash_files(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def write_skill(folder: Path, files: Mapping[str, bytes], bundle: bytes | None = None) -> Path:
    """Write a skill folder to disk."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    if bundle is not None:
        (folder / "skill.oms.sig").write_bytes(bundle)
    return folder


def make_publisher(
    *,
    organization: str = "Example Publisher",
    leaf_ends: datetime = ENDS,
    curve: ec.EllipticCurve | None = None,
    may_sign: bool = True,
) -> Publisher:
    """A fresh chain: root and intermediate on P-384, a leaf on the curve that is asked for."""
    root_key = ec.generate_private_key(ec.SECP384R1())
    middle_key = ec.generate_private_key(ec.SECP384R1())
    leaf_key = ec.generate_private_key(curve or ec.SECP384R1())
    root_name = _name(f"{organization} Root CA", organization)
    middle_name = _name(f"{organization} ICA 01", organization)
    root = _certificate(root_name, root_name, root_key, root_key, depth=None)
    middle = _certificate(middle_name, root_name, middle_key, root_key, depth=0)
    leaf = _leaf(
        _name("Example Skill Signing 001", organization),
        middle_name,
        leaf_key,
        middle_key,
        ends=leaf_ends,
        may_sign=may_sign,
    )
    return Publisher(root=root, intermediate=middle, leaf=leaf, leaf_key=leaf_key)


def _name(common: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(STARTS)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _usage(*, signs: bool, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=not signs and not certifies,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certifies,
        crl_sign=certifies,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    depth: int | None,
) -> x509.Certificate:
    builder = _builder(subject, issuer, key, issuer_key, datetime(9999, 12, 31, tzinfo=UTC))
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(signs=False, certifies=True), critical=True)
        .sign(issuer_key, hashes.SHA384())
    )


def _leaf(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ends: datetime,
    may_sign: bool,
) -> x509.Certificate:
    return (
        _builder(subject, issuer, key, issuer_key, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=may_sign, certifies=False), critical=True)
        .sign(issuer_key, hashes.SHA384())
    )
