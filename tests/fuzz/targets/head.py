"""Heads: only our own error; however they are split; never laxer than h11, never another reading."""

import random

from enforcement.sidecar.http1 import RequestHead
from tests.fuzz.mutate import pieces_of
from tests.fuzz.target import Target, require
from tests.fuzz.targets.listener import Taken, take
from tests.fuzz.targets.reference import Read, read
from tests.hostile.case import HOST, post
from tests.hostile.cases import GROUPS

_WORDS = (
    b"POST,GET,HEAD,HTTP/1.1,HTTP/1.0,HTTP/2,\r\n,\n,\r,\r\n\r\n,\r\n ,\r\n\t,: ,:,Host: node"
    b",Content-Length: ,Transfer-Encoding: chunked,chunked,identity,Connection: ,close,keep-alive"
    b",Upgrade: h2c,Expect: 100-continue,Content-Encoding: gzip,http://node,/v1/models,/../,%2e,//"
    b",0,1,+1,0x1,99999999999999999999,node,other,@,[::1],\x00,\xff,\x0b"
).split(b",")
_SEEDS = (
    post(),
    post(b"Accept: a", b"Accept: b", b"X-Odd:\t a b \t", b"Empty:"),
    b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://node/v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n",
    *(case.raw for name in ("lengths", "heads", "targets", "fields") for case in GROUPS[name]),
)


def check(data: bytes, dice: random.Random) -> str:
    taken = take([data])
    split = take(pieces_of(data, dice))
    require(alike(taken, split), f"whole: {taken}; in pieces: {split}")
    theirs = read(data)
    if taken.refused is not None:
        stricter = not theirs.error and theirs.method
        return f"stricter than h11: {taken.refused[1]}" if stricter else "both refuse"
    if taken.head is None:
        return "incomplete"
    require(not theirs.error, f"h11 refuses: {theirs.error}")
    _agree(taken, theirs)
    return "both accept"


def alike(taken: Taken, split: Taken) -> bool:
    """Of two errors in one message, which is found first may depend on how it arrives."""
    if taken.refused is not None and split.refused is not None:
        return True
    return taken == split


def _agree(taken: Taken, theirs: Read) -> None:
    head = taken.head
    assert head is not None
    require(head.method == theirs.method, f"h11 reads the method {theirs.method!r}")
    require(theirs.target.endswith(head.path), f"h11 reads the target {theirs.target!r}")
    require(head.headers == _joined(theirs), f"h11 reads the fields {theirs.headers}")
    require(taken.body == theirs.body and theirs.ended, f"h11 reads the body {theirs.body!r}")
    require(taken.rest == theirs.rest, f"h11 leaves {theirs.rest!r}")
    require(_length_of(head, taken.body), "the length is not that of the body")


def _joined(theirs: Read) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in theirs.headers:
        found[name] = found[name] + b", " + value if name in found else value
    return found


def _length_of(head: RequestHead, body: bytes) -> bool:
    return head.length is None or head.length == len(body)


TARGET = Target(
    "head",
    "no exception but ours; pieces read as the whole; h11 reads what we accept the same way",
    _SEEDS,
    tuple(_WORDS),
    check,
)
