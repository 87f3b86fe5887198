"""Verify a publisher's skill signature: OpenSSF Model Signing v1.0, certificate method.

Rules of this file:

1. Sans-IO: the caller walks the folder, hashes every file, dot-paths included, and hands in
   `path → sha256`. Paths are relative, `/`-separated.
2. Nothing in a bundle can make this module raise: every outcome is an `OmsResult` with one
   state and reasons with stable codes. A step that fails does not hide the next ones.
3. The chain must hold *now*, not when the certificate says it was made, and must end in a root
   that somebody switched on; the leaf's subject must be the one pinned to that root.
4. The signature covers bytes, not identity: that the signed name, the directory and the front
   matter agree is our own rule.
5. The root digest covers contents in the order of their names, not the names. Whoever needs
   the names bound as well uses `manifest_digest`.
6. Git's own paths are outside the signature by specification. They are listed, never trusted;
   the caller does not import them. The signature file itself is outside, too.
"""

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta, Struct, field

from enforcement.rules.certificates import CertificateError, Chain, OmsRoot, read_chain, trust_chain
from enforcement.rules.dsse import (
    STATEMENT_TYPE,
    DsseError,
    Envelope,
    convert,
    decode_base64,
    load_json,
    pae,
    parse_envelope,
)

SIGNATURE_FILE: Final = "skill.oms.sig"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
IGNORED_GIT_PATHS: Final = (".git", ".github", ".gitattributes", ".gitignore")
BUNDLE_BYTES_MAX: Final = 1024 * 1024
RESOURCES_MAX: Final = 10_000
FOLDER_BYTES_MAX: Final = 50 * 1024 * 1024
PATH_BYTES_MAX: Final = 1024

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
}


class OmsState(StrEnum):
    VERIFIED = "verified"
    WRONG_ROOT = "wrong_root"
    EXPIRED = "expired"
    DRIFTED = "drifted"
    EXTRA_FILES = "extra_files"
    NAME_MISMATCH = "name_mismatch"
    ROLLED_BACK = "rolled_back"
    REVOKED = "revoked"
    UNSIGNED = "unsigned"
    UNSUPPORTED = "unsupported"
    MALFORMED = "malformed"


class Reason(Struct, frozen=True):
    """Why a result is what it is: a stable code, and a sentence for people."""

    code: str
    message: str


class OmsResult(Struct, frozen=True):
    """The outcome for one folder. `reasons` is empty exactly when the state is `verified`."""

    state: OmsState
    reasons: tuple[Reason, ...] = ()
    root_digest: str = ""  # of the files as they are, not as the bundle claims
    kind: str = "none"
    subject_name: str = ""
    root_fingerprint: str = ""  # of the root it chains to, trusted or not
    root_subject: str = ""
    leaf_subject: str = ""
    leaf_serial: str = ""
    drifted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unsigned_ignored: tuple[str, ...] = ()


# ---------------------------------------------------------------------------- the bundle's shape


class _Resource(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1)]
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    algorithm: str


class _Serialization(Struct, frozen=True, forbid_unknown_fields=True):
    method: str
    hash_type: str
    allow_symlinks: bool
    shard_size: int | None = None
    ignore_paths: list[str] = field(default_factory=list)


class _Predicate(Struct, frozen=True, forbid_unknown_fields=True):
    resources: Annotated[list[_Resource], Meta(max_length=RESOURCES_MAX)]
    serialization: _Serialization


class _Digest(Struct, frozen=True):
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Subject(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1)]
    digest: _Digest


class _Statement(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"type_": "_type", "predicate_type": "predicateType"},
):
    type_: str
    subject: Annotated[list[_Subject], Meta(min_length=1, max_length=1)]
    predicate_type: str
    predicate: Any


class _Certificate(Struct, frozen=True, rename="camel"):
    raw_bytes: str


class _CertificateChain(Struct, frozen=True):
    certificates: Annotated[list[_Certificate], Meta(min_length=1, max_length=10)]


class _Bundle(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    media_type: Annotated[str, Meta(pattern=r"^application/vnd\.dev\.sigstore\.bundle")]
    verification_material: dict[str, Any]
    dsse_envelope: Any


class _Signed(Struct, frozen=True):
    """A bundle that was read, not yet believed."""

    envelope: Envelope
    payload: bytes
    statement: _Statement
    predicate: _Predicate
    certificates: list[bytes]


# ---------------------------------------------------------------------------- digests and paths


def root_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over the raw digests of the files in code-point order of their names."""
    return _root_of(files[name] for name in sorted(signed_paths(files)))


def manifest_digest(files: Mapping[str, str]) -> str:
    """SHA-256 of the canonical `{path: digest}` object: binds the names as well."""
    manifest = {name: files[name] for name in signed_paths(files)}
    return hashlib.sha256(rfc8785.dumps(manifest)).hexdigest()


def signed_paths(files: Iterable[str]) -> list[str]:
    """The paths that a signature can cover: all but the signature and git's own."""
    return [name for name in files if name != SIGNATURE_FILE and not is_ignored(name)]


def is_ignored(path: str) -> bool:
    """Whether OMS leaves this path unsigned."""
    return path.split("/", 1)[0] in IGNORED_GIT_PATHS


def path_problem(path: str) -> str | None:
    """Why a path must not be imported, or None: relative, plain, NFC, no `..`, printable."""
    if not path or len(path.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        return "is empty or too long"
    if path.startswith("/") or "\\" in path or ":" in path.split("/", 1)[0]:
        return "is not a plain relative path"
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return "has empty, `.` or `..` parts"
    if not path.isprintable():
        return "holds characters that cannot be seen"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode normal form C"
    return None


def colliding_paths(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two paths, folders included, that some file system takes for one; None if all differ."""
    seen: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            folded = unicodedata.normalize("NFKC", prefix).casefold()
            other = seen.setdefault(folded, prefix)
            if other != prefix:
                return other, prefix
    return None


def _root_of(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


# ---------------------------------------------------------------------------- verifying


class _Findings:
    """Collects reasons; the state is that of the first one."""

    def __init__(self) -> None:
        self.state: OmsState | None = None
        self.reasons: list[Reason] = []

    def add(self, state: OmsState, code: str, message: str) -> None:
        self.state = self.state or state
        self.reasons.append(Reason(code, message))


def verify_oms(
    bundle: bytes | None,
    *,
    directory: str | None,
    front_matter_name: str,
    files: Mapping[str, str],
    roots: Sequence[OmsRoot],
    now: datetime,
    revoked: Collection[str] = (),
    newer: str | None = None,
) -> OmsResult:
    """Judge a skill folder by its publisher's signature.

    Args:
        bundle: the bytes of `skill.oms.sig`, None when there is none.
        directory: the folder's name; None when it has none (a flat archive).
        front_matter_name: `name` in the front matter of `SKILL.md`.
        files: every file of the folder with the SHA-256 of its content, hex.
        roots: the trust roots that are switched on.
        now: the real time, aware.
        revoked: root digests and leaf serials (hex) that are no longer good.
        newer: a known later digest of the same skill; None when this is the newest.
    """
    found = _Findings()
    actual_root = root_digest(files)
    ignored = tuple(sorted(name for name in files if is_ignored(name)))
    if bundle is None:
        found.add(OmsState.UNSIGNED, "no_signature", f"there is no {SIGNATURE_FILE}")
        _check_names(found, front_matter_name, {"directory": directory})
        _check_standing(found, actual_root, "", revoked, newer)
        return _result(found, root_digest=actual_root, unsigned_ignored=ignored)
    try:
        signed = _read_bundle(bundle)
    except DsseError as error:
        state = OmsState.UNSUPPORTED if error.code == "unsupported" else OmsState.MALFORMED
        found.add(state, error.code, str(error))
        return _result(found, root_digest=actual_root, unsigned_ignored=ignored)
    return _judge_signed(
        signed,
        found,
        names={"directory": directory, "signature": signed.statement.subject[0].name},
        front_matter_name=front_matter_name,
        files=files,
        roots=roots,
        now=now,
        revoked=revoked,
        newer=newer,
    )


def _judge_signed(
    signed: _Signed,
    found: _Findings,
    *,
    names: Mapping[str, str | None],
    front_matter_name: str,
    files: Mapping[str, str],
    roots: Sequence[OmsRoot],
    now: datetime,
    revoked: Collection[str],
    newer: str | None,
) -> OmsResult:
    chain = _check_chain(found, signed, roots, now)
    drifted, missing, extra = _compare(signed.predicate.resources, files)
    _check_manifest(found, signed, drifted, missing, extra)
    _check_names(found, front_matter_name, names)
    actual_root = root_digest(files)
    _check_standing(found, actual_root, chain.leaf_serial if chain else "", revoked, newer)
    return _result(
        found,
        root_digest=actual_root,
        kind="oms-x509",
        subject_name=signed.statement.subject[0].name,
        root_fingerprint=chain.root_fingerprint if chain else "",
        root_subject=chain.root_subject if chain else "",
        leaf_subject=chain.leaf_subject if chain else "",
        leaf_serial=chain.leaf_serial if chain else "",
        drifted=drifted,
        missing=missing,
        extra=extra,
        unsigned_ignored=tuple(sorted(name for name in files if is_ignored(name))),
    )


def _result(found: _Findings, **facts: Any) -> OmsResult:
    return OmsResult(state=found.state or OmsState.VERIFIED, reasons=tuple(found.reasons), **facts)


def _read_bundle(raw: bytes) -> _Signed:
    """Raises DsseError: `malformed`, `duplicate_key`, `unknown_field`, `unsupported`."""
    if len(raw) > BUNDLE_BYTES_MAX:
        raise DsseError("malformed", f"the bundle is larger than {BUNDLE_BYTES_MAX} bytes")
    bundle = convert(load_json(raw, what="bundle"), _Bundle, what="bundle")
    material = bundle.verification_material
    envelope, payload = parse_envelope(bundle.dsse_envelope, what="bundle")
    statement = convert(load_json(payload, what="statement"), _Statement, what="statement")
    if statement.type_ != STATEMENT_TYPE or statement.predicate_type != PREDICATE_TYPE:
        raise DsseError("unsupported", f"predicate type {statement.predicate_type!r}")
    predicate = convert(statement.predicate, _Predicate, what="predicate")
    _check_predicate(predicate, statement.subject[0].digest.sha256)
    if "x509CertificateChain" not in material:
        method = (
            "key" if "publicKey" in material else "sigstore" if "certificate" in material else ""
        )
        if not method:
            raise DsseError("malformed", "the bundle has no verification material")
        raise DsseError("unsupported", f"signing method {method!r} is not supported yet")
    chain = convert(material["x509CertificateChain"], _CertificateChain, what="chain")
    if len(envelope.signatures) != 1:
        raise DsseError("malformed", "a bundle carries exactly one signature")
    certificates = [
        decode_base64(item.raw_bytes, what="certificate") for item in chain.certificates
    ]
    return _Signed(envelope, payload, statement, predicate, certificates)


def _check_predicate(predicate: _Predicate, claimed_root: str) -> None:
    how = predicate.serialization
    if how.method != "files":
        raise DsseError("unsupported", f"serialization method {how.method!r}")
    algorithms = {how.hash_type, *(resource.algorithm for resource in predicate.resources)}
    if algorithms != {"sha256"}:
        raise DsseError("unsupported", f"hash algorithm other than sha256: {sorted(algorithms)}")
    if how.allow_symlinks:
        raise DsseError("unsupported", "the signature follows symbolic links")
    names = [resource.name for resource in predicate.resources]
    if names != sorted(set(names)):
        raise DsseError("malformed", "resources are not in order, or stand twice")
    if SIGNATURE_FILE in names:
        raise DsseError("malformed", "the signature lists itself")
    for name in names:
        problem = path_problem(name)
        if problem:
            raise DsseError("malformed", f"resource {name[:200]!a} {problem}")
    clash = colliding_paths(names)
    if clash:
        raise DsseError("malformed", f"resources {clash[0]!a} and {clash[1]!a} collide")
    if _root_of(resource.digest for resource in predicate.resources) != claimed_root:
        raise DsseError("malformed", "the root digest is not that of the listed resources")


def _check_chain(
    found: _Findings, signed: _Signed, roots: Sequence[OmsRoot], now: datetime
) -> Chain | None:
    """Chain and signature. Gives the chain back, trusted or not, for people to see."""
    try:
        chain = read_chain(signed.certificates)
    except CertificateError as error:
        found.add(OmsState.MALFORMED, error.code, str(error))
        return None
    if not _signature_holds(signed, chain):
        sentence = "the signature does not hold for the certificate in the bundle"
        found.add(OmsState.MALFORMED, "signature_invalid", sentence)
    try:
        return trust_chain(chain, roots=roots, now=now)
    except CertificateError as error:
        expired = error.code in {"certificate_expired", "certificate_not_yet_valid"}
        found.add(OmsState.EXPIRED if expired else OmsState.WRONG_ROOT, error.code, str(error))
        return chain


def _signature_holds(signed: _Signed, chain: Chain) -> bool:
    hash_algorithm = _HASHES.get(chain.leaf_key.curve.name)
    if hash_algorithm is None:
        return False
    try:
        raw = decode_base64(signed.envelope.signatures[0].sig, what="signature")
        message = pae(signed.envelope.payload_type, signed.payload)
        chain.leaf_key.verify(raw, message, ec.ECDSA(hash_algorithm))
    except (InvalidSignature, DsseError, ValueError):
        return False
    return True


def _compare(
    resources: Sequence[_Resource], files: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Drifted, missing and extra paths. A git path that is listed counts as signed."""
    listed = {resource.name: resource.digest for resource in resources}
    drifted = [name for name, digest in listed.items() if files.get(name, digest) != digest]
    missing = [name for name in listed if name not in files]
    extra = [name for name in signed_paths(files) if name not in listed]
    return tuple(sorted(drifted)), tuple(sorted(missing)), tuple(sorted(extra))


def _check_manifest(
    found: _Findings,
    signed: _Signed,
    drifted: tuple[str, ...],
    missing: tuple[str, ...],
    extra: tuple[str, ...],
) -> None:
    if drifted:
        found.add(OmsState.DRIFTED, "files_changed", f"changed after signing: {_listed(drifted)}")
    if missing:
        found.add(OmsState.DRIFTED, "files_missing", f"missing: {_listed(missing)}")
    if extra:
        found.add(OmsState.EXTRA_FILES, "files_extra", f"not signed: {_listed(extra)}")
    listed_git = [item.name for item in signed.predicate.resources if is_ignored(item.name)]
    if listed_git:
        sentence = f"the signature covers paths that cannot be imported: {_listed(listed_git)}"
        found.add(OmsState.UNSUPPORTED, "git_paths_signed", sentence)


def _check_names(
    found: _Findings, front_matter_name: str, others: Mapping[str, str | None]
) -> None:
    for where, name in others.items():
        if name is not None and name != front_matter_name:
            sentence = f"SKILL.md is named {front_matter_name!a}, the {where} {name!a}"
            found.add(OmsState.NAME_MISMATCH, f"name_differs_from_{where}", sentence)


def _check_standing(
    found: _Findings, root: str, serial: str, revoked: Collection[str], newer: str | None
) -> None:
    """Revocation and rollback, which no bundle can tell."""
    if root in revoked:
        found.add(OmsState.REVOKED, "digest_revoked", "this content was revoked")
    if serial and serial in revoked:
        found.add(OmsState.REVOKED, "certificate_revoked", f"certificate {serial} was revoked")
    if newer is not None:
        sentence = f"a later version of this skill is known: {newer[:80]}"
        found.add(OmsState.ROLLED_BACK, "newer_known", sentence)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
