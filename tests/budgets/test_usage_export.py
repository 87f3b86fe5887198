"""Exports as streams: what readers that stop half-way cost, and what a long one holds in memory."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from http.client import HTTPConnection
from io import BytesIO
from urllib.parse import urlsplit

import pytest
from pyarrow import parquet

from budgets.api import usage
from budgets.domain.usage import book_usage
from budgets.queries import focus, focusfiles
from budgets.queries.focus import Version, hours_of
from budgets.queries.focusfiles import Output, written
from controlplane.identity.domain.credentials import issue_api_token
from controlplane.identity.enums import Scope
from tests.budgets.world import ACTOR, NOW, World, call
from tests.enforcement.stack import web_processes

CALLS = 8_000  # of a model each: 11 MB, more than sockets hold
POOL = 10  # connections of a web process
DAY = timedelta(days=1)
RANGE = f"since={NOW.date() - DAY}&until={NOW.date() + DAY}"


def book(world: World, count: int, *, name_length: int = 10) -> None:
    events = [call(world, model=f"{number:0{name_length}}") for number in range(count)]
    book_usage(organization_id=world.id, sidecar_id=None, events=events, now=NOW)


def token(world: World) -> str:
    scopes = [Scope.READ.value]
    issued = issue_api_token(
        organization_id=world.id, name="test", scopes=scopes, actor=ACTOR, now=NOW
    )
    return issued.secret


def stopped_reader(address: str, secret: str) -> socket.socket:
    """Asks for an export, reads how it begins, and nothing more."""
    place = urlsplit(address)
    reader = socket.create_connection((place.hostname, place.port), timeout=20)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    head = f"GET /api/v1/usage/export?{RANGE} HTTP/1.1\r\nHost: {place.netloc}\r\n"
    reader.sendall(f"{head}Authorization: Bearer {secret}\r\n\r\n".encode())
    assert reader.recv(15) == b"HTTP/1.1 200 OK"
    return reader


@pytest.mark.django_db(transaction=True)
def test_readers_that_stop_hold_no_connection_of_the_database(world: World) -> None:
    book(world, CALLS, name_length=190)
    secret = token(world)
    with web_processes(1) as (address,), ExitStack() as readers:
        for _ in range(POOL + 2):
            readers.enter_context(stopped_reader(address, secret))
        client = HTTPConnection(urlsplit(address).netloc, timeout=8)
        with closing(client):
            client.request(
                "GET",
                f"/api/v1/usage/query?group_by=&{RANGE}",
                headers={"Authorization": f"Bearer {secret}"},
            )
            assert json.load(client.getresponse())["answered_by"] == "rollups"


def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "PATIENCE_S", 0.05)
    taken: list[bytes] = []

    async def take() -> None:
        async for piece in usage._apart(iter([b"first", b"second", b"third"])):
            taken.append(piece)
            await asyncio.sleep(0 if piece == b"first" else 60)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(take())
    assert taken == [b"first", b"second"]


def test_an_hour_is_told_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    book(world, 5)
    monkeypatch.setattr(focus, "ROWS_AT_ONCE", 2)
    parts = list(hours_of(world.organization, NOW.date(), NOW.date() + DAY, Version.FOCUS_1_4))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert len({row for part in parts for row in part}) == 5


def test_parquet_gathers_parts_into_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("x_Model", "x_Calls")
    monkeypatch.setattr(focusfiles, "GROUP_ROWS", 4)

    def parts() -> Iterator[list[tuple[object, ...]]]:
        for number in range(5):
            yield [(f"m{number}", number), (f"n{number}", None)]

    pieces = list(written(columns, parts(), Output.PARQUET))
    assert len(pieces) == 4, "two groups of four rows, one of two, and the end"
    file = parquet.ParquetFile(BytesIO(b"".join(pieces)))
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [4, 4, 2]
    assert file.read().column("x_Calls").to_pylist() == [
        0,
        None,
        1,
        None,
        2,
        None,
        3,
        None,
        4,
        None,
    ]
