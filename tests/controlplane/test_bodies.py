"""How large a request may be, before Django sees any of it."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from controlplane.bodies import MIB, MOST_BYTES, MOST_FORM_BYTES, bounded

FORM = b"multipart/form-data; boundary=x"


def ask(
    chunks: Iterable[bytes], *, path: str = "/prices/import/", **headers: bytes
) -> tuple[int, bytes, int]:
    """Status, body, and how many chunks were read, in front of an application that reads all."""
    taken: list[bytes] = []
    sent: list[Any] = []
    arrived = iter(chunks)

    async def receive() -> Any:
        chunk = next(arrived, b"")
        taken.append(chunk)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # as Django does
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all read"})

    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    asyncio.run(bounded(application, {"path": path, "headers": named}, receive, send))
    assert len(sent) == 2
    return sent[0]["status"], sent[1]["body"], len(taken)


def test_what_is_small_enough_is_read() -> None:
    body = [b"0" * MIB] * (MOST_BYTES // MIB)
    length = str(MOST_BYTES).encode()
    assert ask(body, content_length=length)[:2] == (200, b"all read")
    assert ask([b"0" * MIB] * 17, content_type=FORM)[:2] == (200, b"all read")


@pytest.mark.parametrize(
    ("kind", "most"), [(b"application/json", MOST_BYTES), (FORM, MOST_FORM_BYTES)]
)
def test_what_says_that_it_is_too_large_is_not_read(kind: bytes, most: int) -> None:
    told = ask([b"0"], content_type=kind, content_length=str(most + 1).encode())
    assert told == (413, b"The request has more than %d MiB." % (most // MIB), 0)


def test_an_endless_body_is_read_up_to_its_limit() -> None:
    chunks = (b"0" * MIB for _ in range(10**9))
    assert ask(chunks, content_type=b"text/plain") == (
        413,
        b"The request has more than 16 MiB.",
        17,
    )


def test_the_api_says_it_as_a_problem() -> None:
    status, body, _ = ask([], path="/api/v1/bills/import", content_length=b"99999999999")
    assert (status, json.loads(body)["type"]) == (413, "urn:comptroller:problem:too-large")


@pytest.mark.parametrize("length", [b"", b"-1", b"many", b"1e9"])
def test_a_length_that_is_none_says_nothing(length: bytes) -> None:
    assert ask([b"0"], content_length=length)[0] == 200
