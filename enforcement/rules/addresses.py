"""Where the control plane may connect to on somebody's word. Pure: names are resolved elsewhere.

Serving nodes stand in private networks, so those are open. What hands out credentials to whoever
asks is not: the metadata services of clouds, on link-local addresses and on a few others, however
an address is spelt or wrapped in IPv6.
"""

import ipaddress
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure's platform resources
            "192.0.0.192",  # Oracle Cloud, its first generation
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS, credentials of pods
            "fd20:ce::254",  # Google Cloud
            "fd00:c1::a9fe:a9fe",  # Oracle Cloud
            "fd00:42::42",  # Scaleway
        ),
    )
)
_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
# IPv4 in IPv6, and by how many bits from the right it ends.
_WRAPPED: tuple[tuple[IPv6Network, int], ...] = tuple(
    (IPv6Network(network), shift)
    for network, shift in (
        ("::/96", 0),  # IPv4-compatible, RFC 4291 §2.5.5.1
        ("::ffff:0:0/96", 0),  # IPv4-mapped, RFC 4291 §2.5.5.2
        ("::ffff:0:0:0/96", 0),  # IPv4-translated, RFC 2765
        ("64:ff9b::/96", 0),  # NAT64, RFC 6052
        ("64:ff9b:1::/48", 0),  # NAT64 of a site, RFC 8215
        ("2002::/16", 80),  # 6to4, RFC 3056
    )
)
_TEREDO = IPv6Network("2001::/32")  # RFC 4380: the client's address, inverted
_ISATAP = re.compile(r"(?:0000|0200):5efe:[0-9a-f]{4}:[0-9a-f]{4}")  # RFC 5214 §6.1
_PART = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_MOST_V4 = 2**32


def literal(host: str) -> Address | None:
    """The address that a host spells, as resolvers of machines read it; None if it is a name.

    `2852039166`, `0xa9.254.0251.254` and `169.254.43518` are all 169.254.169.254 to inet_aton(3).
    """
    host = host.removesuffix(".")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return _by_parts(host.split("."))


def _by_parts(parts: list[str]) -> IPv4Address | None:
    if len(parts) > 4 or not all(_PART.fullmatch(part) and len(part) < 32 for part in parts):
        return None
    try:
        *first, last = (_number(part) for part in parts)
    except ValueError:
        return None
    room = _MOST_V4 >> (8 * len(first))
    if any(part > 255 for part in first) or last >= room:
        return None
    value = last
    for position, part in enumerate(first):
        value += part << (24 - 8 * position)
    return IPv4Address(value)


def _number(part: str) -> int:
    if part[:2] in ("0x", "0X"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def refusal(address: Address) -> str:
    """Why nobody is sent to this address; empty if it is open."""
    for one in (address, *_inside(address)):
        if one.is_link_local or _without_zone(one) in _METADATA:
            return "the address leads to the metadata service of a cloud"
        if one.is_multicast or one.is_unspecified or _is_no_host(one):
            return "the address is that of no machine"
    return ""


def refusal_of_name(host: str) -> str:
    """The same of a host as it is written, before it is resolved."""
    address = literal(host)
    if address is not None:
        return refusal(address)
    if host.removesuffix(".").lower() in _METADATA_NAMES:
        return "the address leads to the metadata service of a cloud"
    return ""


def canonical(url: str) -> str:
    """One spelling for each place: two nodes with the same one are one.

    Raises ValueError: no URL with a host.
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower().removesuffix(".")
    if not host:
        raise ValueError("no host")
    address = literal(host)
    mapped = next((one for one in _inside(address)), None) if address is not None else None
    shown = mapped or address
    named = host if shown is None else (f"[{shown}]" if shown.version == 6 else str(shown))
    port = parts.port or {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{named}:{port}{parts.path.rstrip('/')}"


def _inside(address: Address) -> Iterator[IPv4Address]:
    """Every IPv4 address that an IPv6 one can lead to."""
    if isinstance(address, IPv4Address):
        return
    value = int(_without_zone(address))
    if value < 2:  # :: and ::1 are no IPv4 addresses
        return
    for network, shift in _WRAPPED:
        if _without_zone(address) in network:
            yield IPv4Address((value >> shift) % _MOST_V4)
    if _without_zone(address) in _TEREDO:
        yield IPv4Address((value % _MOST_V4) ^ (_MOST_V4 - 1))
    if _ISATAP.fullmatch(_without_zone(address).exploded[20:]):
        yield IPv4Address(value % _MOST_V4)


def _without_zone(address: Address) -> Address:
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


def _is_no_host(address: Address) -> bool:
    """0.0.0.0/8 and 240.0.0.0/4: the first reaches this machine in ways that nobody checks."""
    if isinstance(address, IPv6Address):
        return False
    first = int(address) >> 24
    return first == 0 or first >= 240
