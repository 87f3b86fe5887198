"""What a message must be before it comes near the ledger. Nothing here reads the database."""

import re
from collections.abc import Iterable
from uuid import UUID

from enforcement.errors import MessageError, SpoolOfAnotherError
from enforcement.rules.wire import Group, Header, Hello, Sync

ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
MAX_AMOUNT = 2**62  # no counter of a balance can overflow, whatever is added to it
MAX_COUNT = 2**31 - 1
MAX_WAIT_MS = 2_000
MAX_GROUPS = 500
MAX_REPORTS = 20_000
MAX_UPSTREAMS = 200


def to_uuid(text: str) -> UUID:
    """Raises MessageError unless the text is an id in its usual form."""
    _check_id(text)
    return UUID(text)


def _check_id(text: str) -> None:
    if ID.fullmatch(text) is None:
        raise MessageError(f"not an id: {text[:64]!r}")


def check_header(header: Header, *, organization: str) -> None:
    """Raises MessageError; SpoolOfAnotherError when it names another organization."""
    _check_id(header.spool)
    if header.organization and header.organization != organization:
        raise SpoolOfAnotherError("this token belongs to another organization")
    _within("the header", MAX_COUNT, [header.epoch])
    _within("the header", MAX_AMOUNT, [header.policy_revision, header.order_cursor])
    _plain("the book's name", header.book)


def check_hello(hello: Hello) -> None:
    """Raises MessageError."""
    if not hello.boot:
        raise MessageError("a life of a book needs a name of its own: `boot`")
    for text in (hello.boot, hello.kernel_boot_id, hello.version):
        _plain("the introduction", text)
    names = [upstream.name for upstream in hello.upstreams]
    if len(names) > MAX_UPSTREAMS:
        raise MessageError(f"at most {MAX_UPSTREAMS} serving nodes")
    if len(set(names)) != len(names) or not all(0 < len(name) <= 100 for name in names):
        raise MessageError("every serving node needs a name of its own, of at most 100 characters")
    for upstream in hello.upstreams:
        _within("the context window", MAX_COUNT, [upstream.context_window or 0])
        for text in (upstream.name, upstream.base_url, upstream.engine, upstream.engine_version):
            _plain("a serving node", text)
        for text in (upstream.provider, upstream.metrics_path, *upstream.models):
            _plain("a serving node", text)


def check_sync(sync: Sync) -> None:
    """Raises MessageError."""
    if len(sync.reports) > MAX_REPORTS or len(sync.groups) > MAX_GROUPS:
        raise MessageError(f"at most {MAX_REPORTS} reports and {MAX_GROUPS} groups")
    for report in sync.reports:
        _check_id(report.lease)
        amounts = (report.used, report.returned, report.open, report.overrun)
        _within(f"the report of lease {report.lease}", MAX_AMOUNT, amounts)
    for group in sync.groups:
        _check_group(group)
    if len({group.key for group in sync.groups}) != len(sync.groups):
        raise MessageError("a group stands in the message twice")
    for receipt in sync.acknowledgements:
        _check_id(receipt.order)
        figures = (receipt.streams_cut, receipt.tokens_after, receipt.last_byte_ms)
        _within(f"the receipt of order {receipt.order}", MAX_COUNT, figures)


def _check_group(group: Group) -> None:
    _check_id(group.key)
    if not group.items:
        raise MessageError(f"group {group.key} asks for nothing")
    for item in group.items:
        if not 0 <= item.floor <= item.need <= item.want <= MAX_AMOUNT or item.need == 0:
            raise MessageError(f"group {group.key}: 0 ≤ floor ≤ need ≤ want, and need > 0")
    if len({(item.budget, item.value) for item in group.items}) != len(group.items):
        raise MessageError(f"group {group.key} names a balance twice")
    if not 0 <= group.wait_ms <= MAX_WAIT_MS:
        raise MessageError(f"group {group.key} may wait for 0 to {MAX_WAIT_MS} ms")


def _within(what: str, most: int, numbers: Iterable[int]) -> None:
    if not all(0 <= number <= most for number in numbers):
        raise MessageError(f"{what} has a number that cannot be")


def _plain(what: str, text: str) -> None:
    """No text column takes a NUL, and none of ours is long."""
    if "\0" in text or len(text) > 2_000:
        raise MessageError(f"{what} has a text that cannot be")
