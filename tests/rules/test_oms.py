"""The publisher's signature: own chain, own bundles, every way of tampering."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.rules.certificates import OmsRoot
from enforcement.rules.oms import (
    OmsResult,
    OmsState,
    root_digest,
    verify_oms,
)
from tests.skills.publisher import (
    FILES,
    NOW,
    Publisher,
    b64,
    hash_files,
    make_publisher,
    statement_of,
)

NAME = "example-skill"


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    return make_publisher()


@pytest.fixture(scope="module")
def bundle(publisher: Publisher) -> bytes:
    return publisher.sign(NAME, FILES)


def judge(
    bundle: bytes | None,
    publisher: Publisher,
    *,
    files: dict[str, bytes] = FILES,
    roots: list[OmsRoot] | None = None,
    **changes: Any,
) -> OmsResult:
    arguments: dict[str, Any] = {
        "directory": NAME,
        "front_matter_name": NAME,
        "files": hash_files(files),
        "roots": [publisher.trust()] if roots is None else roots,
        "now": NOW,
    }
    return verify_oms(bundle, **(arguments | changes))


def codes(result: OmsResult) -> list[str]:
    return [reason.code for reason in result.reasons]


def test_a_good_bundle_is_verified(publisher: Publisher, bundle: bytes) -> None:
    result = judge(bundle, publisher)

    assert result == OmsResult(
        state=OmsState.VERIFIED,
        root_digest=root_digest(hash_files(FILES)),
        kind="oms-x509",
        subject_name=NAME,
        root_fingerprint=result.root_fingerprint,
        root_subject="CN=Example Publisher Root CA,O=Example Publisher,C=US",
        leaf_subject="CN=Example Skill Signing 001,O=Example Publisher,C=US",
        leaf_serial=format(publisher.leaf.serial_number, "x"),
    )


def test_p256_leaf_is_verified() -> None:
    small = make_publisher(curve=ec.SECP256R1())

    assert judge(small.sign(NAME, FILES), small).state == OmsState.VERIFIED


def test_p521_leaf_is_refused() -> None:
    large = make_publisher(curve=ec.SECP521R1())

    assert judge(large.sign(NAME, FILES), large).state == OmsState.MALFORMED


# ---------------------------------------------------------------------------- the chain


def test_no_root_switched_on(publisher: Publisher, bundle: bytes) -> None:
    result = judge(bundle, publisher, roots=[])

    assert (result.state, codes(result)) == (OmsState.WRONG_ROOT, ["no_trust_root"])


def test_another_publishers_root(publisher: Publisher, bundle: bytes) -> None:
    result = judge(bundle, publisher, roots=[make_publisher().trust()])

    assert (result.state, codes(result)) == (OmsState.WRONG_ROOT, ["untrusted_root"])
    assert result.root_subject == "CN=Example Publisher Root CA,O=Example Publisher,C=US"


def test_second_root_is_tried(publisher: Publisher, bundle: bytes) -> None:
    roots = [make_publisher().trust(), publisher.trust()]

    assert judge(bundle, publisher, roots=roots).state == OmsState.VERIFIED


@pytest.mark.parametrize(
    "pin",
    [
        "",
        "CN=",
        "CN=Example Skill Signing 002",
        "CN=Example Skill Signing *,O=Somebody Else",
        "UID=Example",
        "CN=Example Publisher Root CA",
    ],
)
def test_leaf_must_match_the_pin(publisher: Publisher, bundle: bytes, pin: str) -> None:
    result = judge(bundle, publisher, roots=[publisher.trust(pin)])

    assert (result.state, codes(result)) == (OmsState.WRONG_ROOT, ["subject_not_pinned"])


@pytest.mark.parametrize(
    ("moment", "state", "reasons"),
    [
        (datetime(2026, 3, 31, tzinfo=UTC), OmsState.EXPIRED, ["certificate_not_yet_valid"]),
        (datetime(2026, 4, 2, tzinfo=UTC), OmsState.VERIFIED, []),
        (datetime(2028, 3, 31, tzinfo=UTC), OmsState.VERIFIED, []),
        (datetime(2028, 4, 2, tzinfo=UTC), OmsState.EXPIRED, ["certificate_expired"]),
        (datetime(2040, 1, 1, tzinfo=UTC), OmsState.EXPIRED, ["certificate_expired"]),
    ],
)
def test_the_chain_must_hold_now(
    publisher: Publisher, bundle: bytes, moment: datetime, state: OmsState, reasons: list[str]
) -> None:
    result = judge(bundle, publisher, now=moment)

    assert (result.state, codes(result)) == (state, reasons)


def test_leaf_that_may_not_sign() -> None:
    idle = make_publisher(may_sign=False)

    result = judge(idle.sign(NAME, FILES), idle)

    assert (result.state, codes(result)) == (OmsState.WRONG_ROOT, ["untrusted_root"])


def test_certificate_that_is_no_certificate(publisher: Publisher, bundle: bytes) -> None:
    document = json.loads(bundle)
    chain = document["verificationMaterial"]["x509CertificateChain"]["certificates"]
    chain[0]["rawBytes"] = b64(b"0\x03\x02\x01\x01")

    result = judge(json.dumps(document).encode(), publisher)

    assert (result.state, codes(result)) == (OmsState.MALFORMED, ["certificate_malformed"])


# ---------------------------------------------------------------------------- the signature


def test_forged_signature_still_names_the_files(publisher: Publisher, bundle: bytes) -> None:
    """A publisher's real chain around a payload that it never signed."""
    changed = FILES | {"SKILL.md": b"---\nname: example-skill\n---\nDo harm.\n"}
    document = json.loads(bundle)
    document["dsseEnvelope"]["payload"] = b64(json.dumps(statement_of(NAME, changed)).encode())

    result = judge(json.dumps(document).encode(), publisher, files=changed)

    assert (result.state, codes(result)) == (OmsState.MALFORMED, ["signature_invalid"])


def test_signature_of_another_key(publisher: Publisher, bundle: bytes) -> None:
    document = json.loads(bundle)
    other = json.loads(make_publisher().sign(NAME, FILES))
    document["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"]

    assert codes(judge(json.dumps(document).encode(), publisher)) == ["signature_invalid"]


def _edit(path: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        target: Any = document
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


ENVELOPE = ["dsseEnvelope"]
MATERIAL = "verificationMaterial"


@pytest.mark.parametrize(
    ("change", "state", "code"),
    [
        (_edit([*ENVELOPE, "payloadType"], "text/plain"), "unsupported", "unsupported"),
        (_edit([*ENVELOPE, "signatures"], []), "malformed", "malformed"),
        (_edit([*ENVELOPE, "signatures"], [{"sig": "AA=="}] * 2), "malformed", "malformed"),
        (_edit([*ENVELOPE, "signatures"], [{"sig": "!"}]), "malformed", "signature_invalid"),
        (_edit([*ENVELOPE, "signatures"], [{"sig": None}]), "malformed", "malformed"),
        (_edit([*ENVELOPE, "payload"], "e30="), "malformed", "malformed"),
        (_edit([*ENVELOPE, "payload"], "W10"), "malformed", "malformed"),
        (_edit([*ENVELOPE, "other"], 1), "malformed", "unknown_field"),
        (_edit(["other"], 1), "malformed", "unknown_field"),
        (_edit(["mediaType"], "text/plain"), "malformed", "malformed"),
        (_edit([MATERIAL], {}), "malformed", "malformed"),
        (_edit([MATERIAL], {"publicKey": {"hint": "00"}}), "unsupported", "unsupported"),
        (_edit([MATERIAL], {"certificate": {"rawBytes": ""}}), "unsupported", "unsupported"),
        (_edit([MATERIAL, "x509CertificateChain"], {"certificates": []}), "malformed", "malformed"),
        (_edit([MATERIAL, "x509CertificateChain"], 7), "malformed", "malformed"),
    ],
)
def test_bundle_tampering(
    publisher: Publisher,
    bundle: bytes,
    change: Callable[[dict[str, Any]], None],
    state: str,
    code: str,
) -> None:
    document = json.loads(bundle)
    change(document)

    result = judge(json.dumps(document).encode(), publisher)

    assert (result.state, codes(result)) == (state, [code])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"mediaType":' * 5_000,
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'"\\ud800"',
        b" " * (1024 * 1024 + 1),
    ],
    ids=lambda raw: f"{len(raw)}-{raw[:8].hex()}",
)
def test_what_is_no_bundle(publisher: Publisher, raw: bytes) -> None:
    result = judge(raw, publisher)

    assert (result.state, codes(result)) == (OmsState.MALFORMED, ["malformed"])


def test_truncated_bundle(publisher: Publisher, bundle: bytes) -> None:
    states = {judge(bundle[:length], publisher).state for length in range(0, len(bundle), 97)}

    assert states == {OmsState.MALFORMED}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_is_verified(data: st.DataObject) -> None:
    publisher, bundle = _shared()
    start = bundle.index(b'"dsseEnvelope"')  # the chain holds a root that nobody needs
    position = data.draw(st.integers(start, len(bundle) - 1))
    flipped = bytearray(bundle)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))

    result = judge(bytes(flipped), publisher)

    assert result.state in {OmsState.MALFORMED, OmsState.UNSUPPORTED} or _same(flipped, bundle)


def _same(left: bytearray, right: bytes) -> bool:
    """Whether a flip left the document as it was: an unsigned `keyid`, or white space."""
    one, two = json.loads(bytes(left)), json.loads(right)
    for document in (one, two):
        document["dsseEnvelope"]["signatures"][0].pop("keyid", None)
    return bool(one == two)


_SHARED: list[tuple[Publisher, bytes]] = []


def _shared() -> tuple[Publisher, bytes]:
    if not _SHARED:
        made = make_publisher()
        _SHARED.append((made, made.sign(NAME, FILES)))
    return _SHARED[0]


# ---------------------------------------------------------------------------- the statement


def _resources(change: Callable[[list[dict[str, str]]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda statement: change(statement["predicate"]["resources"])


def _serialization(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda statement: statement["predicate"]["serialization"].update(fields)


@pytest.mark.parametrize(
    ("change", "state", "code"),
    [
        (_edit(["_type"], "https://in-toto.io/Statement/v0.1"), "unsupported", "unsupported"),
        (
            _edit(["predicateType"], "https://model_signing/Digests/v0.1"),
            "unsupported",
            "unsupported",
        ),
        (_edit(["subject"], []), "malformed", "malformed"),
        (_edit(["subject", 0, "digest", "sha256"], "0" * 64), "malformed", "malformed"),
        (_edit(["extra"], 1), "malformed", "unknown_field"),
        (_serialization(method="shards", shard_size=1), "unsupported", "unsupported"),
        (_serialization(hash_type="blake2b"), "unsupported", "unsupported"),
        (_serialization(allow_symlinks=True), "unsupported", "unsupported"),
        (_serialization(other=1), "malformed", "unknown_field"),
        (_resources(lambda items: items.reverse()), "malformed", "malformed"),
        (_resources(lambda items: items.append(items[-1])), "malformed", "malformed"),
        (_resources(lambda items: items[0].update(name="../x")), "malformed", "malformed"),
        (_resources(lambda items: items[0].update(name="/etc/passwd")), "malformed", "malformed"),
        (_resources(lambda items: items[0].update(digest="zz")), "malformed", "malformed"),
        (_resources(lambda items: items[0].update(name="skill.oms.sig")), "malformed", "malformed"),
        (_resources(lambda items: items[0].update(algorithm="md5")), "unsupported", "unsupported"),
    ],
)
def test_statements_that_are_signed_but_wrong(
    publisher: Publisher, change: Callable[[dict[str, Any]], None], state: str, code: str
) -> None:
    result = judge(publisher.sign(NAME, FILES, change=change), publisher)

    assert (result.state, codes(result)) == (state, [code])


def test_too_many_resources(publisher: Publisher) -> None:
    def swell(statement: dict[str, Any]) -> None:
        digest = "0" * 64
        statement["predicate"]["resources"] = [
            {"name": f"f{number:05}", "algorithm": "sha256", "digest": digest}
            for number in range(10_001)
        ]

    assert codes(judge(publisher.sign(NAME, FILES, change=swell), publisher)) == ["malformed"]


# ---------------------------------------------------------------------------- the files


@pytest.mark.parametrize(
    ("files", "state", "reasons", "named"),
    [
        (FILES | {"SKILL.md": b"changed"}, "drifted", ["files_changed"], ("SKILL.md", "", "")),
        (
            {path: content for path, content in FILES.items() if path != "scripts/hello.sh"},
            "drifted",
            ["files_missing"],
            ("", "scripts/hello.sh", ""),
        ),
        (FILES | {"more.md": b""}, "extra_files", ["files_extra"], ("", "", "more.md")),
        (FILES | {".hidden": b""}, "extra_files", ["files_extra"], ("", "", ".hidden")),
        (
            FILES | {"sub/.git/config": b""},
            "extra_files",
            ["files_extra"],
            ("", "", "sub/.git/config"),
        ),
        (FILES | {".gitmodules": b""}, "extra_files", ["files_extra"], ("", "", ".gitmodules")),
    ],
)
def test_files_that_differ(
    *,
    publisher: Publisher,
    bundle: bytes,
    files: dict[str, bytes],
    state: str,
    reasons: list[str],
    named: tuple[str, str, str],
) -> None:
    result = judge(bundle, publisher, files=files)

    assert (result.state, codes(result)) == (state, reasons)
    lists = (result.drifted, result.missing, result.extra)
    assert tuple("".join(paths) for paths in lists) == named


def test_renamed_file_is_missing_and_extra(publisher: Publisher, bundle: bytes) -> None:
    files = {path.replace("hello.sh", "hullo.sh"): body for path, body in FILES.items()}

    result = judge(bundle, publisher, files=files)

    assert (result.state, codes(result)) == ("drifted", ["files_missing", "files_extra"])
    assert (result.missing, result.extra) == (("scripts/hello.sh",), ("scripts/hullo.sh",))


def test_git_paths_are_listed_and_never_trusted(publisher: Publisher, bundle: bytes) -> None:
    planted = {".git/hooks/post-checkout": b"x", ".github/a.yml": b"x", ".gitignore": b"x"}

    result = judge(bundle, publisher, files=FILES | planted)

    assert result.state == OmsState.VERIFIED
    assert result.unsigned_ignored == (".git/hooks/post-checkout", ".github/a.yml", ".gitignore")
    assert result.root_digest == root_digest(hash_files(FILES))


def test_signed_git_path_cannot_be_imported(publisher: Publisher) -> None:
    files = FILES | {".gitignore": b"*.pyc\n"}

    result = judge(publisher.sign(NAME, files), publisher, files=files)

    assert (result.state, codes(result)) == ("unsupported", ["git_paths_signed"])


# ---------------------------------------------------------------------------- name and standing


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"directory": "other"}, ["name_differs_from_directory"]),
        (
            {"front_matter_name": "other"},
            ["name_differs_from_directory", "name_differs_from_signature"],
        ),
        ({"directory": "other", "front_matter_name": "other"}, ["name_differs_from_signature"]),
        (
            {"front_matter_name": "example‑skill", "directory": None},
            ["name_differs_from_signature"],
        ),
    ],
)
def test_names_must_agree(
    publisher: Publisher, bundle: bytes, changes: dict[str, Any], reasons: list[str]
) -> None:
    result = judge(bundle, publisher, **changes)

    assert (result.state, codes(result)) == (OmsState.NAME_MISMATCH, reasons)


def test_flat_archive_has_no_directory_to_compare(publisher: Publisher, bundle: bytes) -> None:
    assert judge(bundle, publisher, directory=None).state == OmsState.VERIFIED


def test_revoked_content_and_certificate(publisher: Publisher, bundle: bytes) -> None:
    serial = format(publisher.leaf.serial_number, "x")
    revoked = {root_digest(hash_files(FILES)), serial}

    result = judge(bundle, publisher, revoked=revoked)

    assert result.state == OmsState.REVOKED
    assert codes(result) == ["digest_revoked", "certificate_revoked"]


def test_older_than_a_known_one(publisher: Publisher, bundle: bytes) -> None:
    result = judge(bundle, publisher, newer="sha256:abc")

    assert (result.state, codes(result)) == (OmsState.ROLLED_BACK, ["newer_known"])


def test_unsigned(publisher: Publisher) -> None:
    result = judge(None, publisher)

    assert (result.state, codes(result)) == (OmsState.UNSIGNED, ["no_signature"])
    assert result.root_digest == root_digest(hash_files(FILES))


def test_worst_state_first_and_every_reason_kept(publisher: Publisher, bundle: bytes) -> None:
    result = judge(
        bundle,
        publisher,
        files=FILES | {"SKILL.md": b""},
        now=NOW + timedelta(days=3650),
        directory="other",
        newer="x",
    )

    assert result.state == OmsState.EXPIRED
    assert codes(result) == [
        "certificate_expired",
        "files_changed",
        "name_differs_from_directory",
        "newer_known",
    ]
