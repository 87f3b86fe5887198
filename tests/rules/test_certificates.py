"""Publishers' chains: roots, pins and time."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from enforcement.rules.certificates import (
    CertificateError,
    OmsRoot,
    fingerprint_of,
    read_chain,
    read_root,
    subject_matches,
    trust_chain,
)
from tests.skills.publisher import NOW, Publisher, make_publisher


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    return make_publisher()


def ders(publisher: Publisher) -> list[bytes]:
    chain = (publisher.leaf, publisher.intermediate, publisher.root)
    return [item.public_bytes(Encoding.DER) for item in chain]


def test_root_is_read(publisher: Publisher) -> None:
    assert fingerprint_of(read_root(publisher.root_pem)) == fingerprint_of(publisher.root)


def test_what_is_no_root(publisher: Publisher) -> None:
    leaf, middle = (
        item.public_bytes(Encoding.PEM).decode()
        for item in (publisher.leaf, publisher.intermediate)
    )
    for pem in ("", "x", publisher.root_pem[:-60], leaf, middle, publisher.root_pem + leaf):
        with pytest.raises(CertificateError) as caught:
            read_root(pem)
        assert caught.value.code in {"not_a_root", "not_a_certificate"}


def test_chain_says_what_it_claims(publisher: Publisher) -> None:
    chain = read_chain(ders(publisher))

    assert chain.leaf_subject == "CN=Example Skill Signing 001,O=Example Publisher,C=US"
    assert chain.root_fingerprint == fingerprint_of(publisher.root)
    assert chain.leaf_serial == format(publisher.leaf.serial_number, "x")


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80" * 50, b"x" * 10_000])
def test_bytes_that_are_no_certificate(der: bytes) -> None:
    with pytest.raises(CertificateError) as caught:
        read_chain([der])
    assert caught.value.code == "certificate_malformed"


def test_leaf_with_another_kind_of_key() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    certificate = (
        builder.public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )

    with pytest.raises(CertificateError) as caught:
        read_chain([certificate.public_bytes(Encoding.DER)])
    assert caught.value.code == "key_unsupported"


def test_chain_without_its_root_is_trusted_by_the_pinned_one(publisher: Publisher) -> None:
    chain = read_chain(ders(publisher)[:2])

    assert trust_chain(chain, roots=[publisher.trust()], now=NOW) is chain


def test_missing_intermediate(publisher: Publisher) -> None:
    leaf, _, root = ders(publisher)

    with pytest.raises(CertificateError) as caught:
        trust_chain(read_chain([leaf, root]), roots=[publisher.trust()], now=NOW)
    assert caught.value.code == "untrusted_root"


def test_root_that_is_the_right_one_by_name_only(publisher: Publisher) -> None:
    impostor = make_publisher()  # the same names, other keys

    with pytest.raises(CertificateError) as caught:
        trust_chain(read_chain(ders(impostor)), roots=[publisher.trust()], now=NOW)
    assert caught.value.code == "untrusted_root"


def test_pin_that_fits_later_in_the_list_is_found(publisher: Publisher) -> None:
    roots = [OmsRoot(pem=publisher.root_pem, required_subject="CN=Other"), publisher.trust()]

    assert trust_chain(read_chain(ders(publisher)), roots=roots, now=NOW)


@pytest.mark.parametrize(
    ("pin", "fits"),
    [
        ("CN=Example Skill Signing 001", True),
        ("CN=Example Skill Signing *, O=Example Publisher, C=US", True),
        ("O=Example Publisher", True),
        ("CN=*", True),
        ("CN=example skill signing 001", False),
        ("CN=Example Skill Signing", False),
        ("O=Example", False),
        ("CN=Example Skill Signing 001,O=Other", False),
        ("CN", False),
        ("CN=", False),
        ("", False),
        ("L=Anywhere", False),
    ],
)
def test_pins(publisher: Publisher, pin: str, *, fits: bool) -> None:
    assert subject_matches(pin, publisher.leaf.subject) is fits
