"""Chunked bodies: the same promises as for heads."""

import random

from tests.fuzz.mutate import pieces_of
from tests.fuzz.target import Target, require
from tests.fuzz.targets.head import alike
from tests.fuzz.targets.listener import take
from tests.fuzz.targets.reference import read
from tests.hostile.case import FOLLOWER, chunk, chunked
from tests.hostile.cases import GROUPS

_HEAD = chunked(b"")
_LAST = b"0\r\n\r\n"
_WORDS = (
    b'\r\n,\n,\r,0\r\n\r\n,0,00,5,A,a,FF,FFFFFFFF,0x5,+5,-5,_,;,;a=b,;a=",", ,\t,\x00,X: a\r\n'
    b",5\r\nhello\r\n,1\r\nx\r\n,GET / HTTP/1.1\r\n"
).split(b",")
_SEEDS = (
    chunk() + _LAST,
    chunk(b"a") + chunk(b"0" * 16) + chunk(b"b\r\n0\r\n\r\n") + _LAST + FOLLOWER,
    b"".join(chunk(b"%d" % number) for number in range(40)) + _LAST,
    b"00a\r\n0123456789\r\n000\r\n\r\n",
    chunk(b"x" * 4_000) + chunk(b"y" * 96) + _LAST,
    chunk(b"x" * 4_000) + chunk(b"y" * 97) + _LAST,
    *(case.raw.removeprefix(_HEAD)[:2_000] for case in GROUPS["chunks"]),
)


def check(data: bytes, dice: random.Random) -> str:
    taken = take([_HEAD + data])
    split = take([_HEAD, *pieces_of(data, dice)])
    require(alike(taken, split), f"whole: {taken}; in pieces: {split}")
    theirs = read(_HEAD + data)
    if taken.refused is not None:
        return "both refuse" if theirs.error else f"stricter than h11: {taken.refused[1]}"
    if taken.head is None:
        return "incomplete"
    require(not theirs.error, f"h11 refuses: {theirs.error}")
    require(theirs.ended and taken.body == theirs.body, f"h11 reads the body {theirs.body!r}")
    require(taken.rest == theirs.rest, f"h11 leaves {theirs.rest!r}")
    return "both accept"


TARGET = Target(
    "chunked",
    "no exception but ours; pieces read as the whole; h11 reads what we accept the same way",
    _SEEDS,
    tuple(_WORDS),
    check,
)
