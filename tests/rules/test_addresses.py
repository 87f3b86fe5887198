"""Where the control plane goes on somebody's word, and where it does not."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.addresses import canonical, literal, refusal, refusal_of_name

METADATA = "the address leads to the metadata service of a cloud"
NOBODY = "the address is that of no machine"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "169.254.170.2",
        "2852039166",
        "0xa9fea9fe",
        "0xA9FEA9FE",
        "025177524776",
        "0xa9.254.0251.254",
        "169.254.43518",
        "169.16689662",
        "0251.0376.0251.0376",
        "00000251.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b::6464:64c8",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2002:6464:64c8::",
        "2001:0:1:2:3:4:5601:5601",
        "2001:db8::5efe:169.254.169.254",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
        "instance-data",
    ],
)
def test_no_spelling_leads_to_the_metadata_of_a_cloud(host: str) -> None:
    assert refusal_of_name(host) == METADATA


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.1.2.3"],
)
def test_an_address_of_no_machine_is_refused(host: str) -> None:
    assert refusal_of_name(host) == NOBODY


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.7", "172.16.3.4", "192.168.1.1", "100.64.0.1", "203.0.113.7"),
        *("::1", "fd00::7", "::ffff:10.0.0.7", "64:ff9b::8.8.8.8", "2001:db8::1", "0x7f.1"),
        *("gpu-a", "gpu-a.example", "1.example", "0x7f.example", "169.254.169.254.example"),
    ],
)
def test_nodes_of_private_networks_and_others_are_open(host: str) -> None:
    assert refusal_of_name(host) == ""


@pytest.mark.parametrize(
    "host", ["256.1.1.1", "1.2.3.4.5", "1.2.3.256", "08.1.1.1", "4294967296", "a", "1..2", "0xg"]
)
def test_what_is_no_address_is_a_name(host: str) -> None:
    assert literal(host) is None


@given(st.integers(0, 2**32 - 1))
def test_every_spelling_of_an_address_is_that_address(value: int) -> None:
    address = IPv4Address(value)
    a, b, c, d = address.packed
    for host in (
        str(value),
        hex(value),
        f"0{value:o}" if value else "0",
        f"{a}.{value % 2**24}",
        f"{a:#x}.{b}.{value % 2**16}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        str(address),
    ):
        assert literal(host) == address


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_judged_alike_however_it_is_wrapped(value: int) -> None:
    plain = IPv4Address(value)
    if value < 2:
        return
    for wrapped in (
        f"::ffff:{plain}",
        f"64:ff9b::{plain}",
        str(ip_address((0x2002 << 112) + (value << 80))),
    ):
        assert refusal(ip_address(wrapped)) == refusal(plain)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://gpu-a", "HTTP://GPU-A.:80/"),
        ("https://gpu-a/v1", "https://gpu-a:443/v1/"),
        ("http://127.0.0.1:8000", "http://2130706433:8000/"),
        ("http://10.0.0.1:8000", "http://[::ffff:10.0.0.1]:8000"),
        ("http://[fd00::7]:80", "http://[fd00:0:0::7]"),
    ],
)
def test_one_place_has_one_spelling(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


def test_other_places_have_others() -> None:
    places = ["http://a", "https://a", "http://a:81", "http://a/x", "http://b", "http://[::1]"]
    assert len({canonical(place) for place in places}) == len(places)
    with pytest.raises(ValueError, match="no host"):
        canonical("gpu")
