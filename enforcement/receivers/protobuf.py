"""How many spans an OTLP body has, before any is built: four million fit in 8 MiB of protobuf.

Encoding: https://protobuf.dev/programming-guides/encoding/. `ExportTraceServiceRequest` has its
`ResourceSpans` as field 1, those their `ScopeSpans` as field 2, those their spans as field 2.
"""

from collections.abc import Iterator, Sequence

_LEVELS = (1, 2, 2)
_VARINT, _EIGHT_BYTES, _MESSAGE, _GROUP, _GROUP_END, _FOUR_BYTES = range(6)

Place = tuple[int, int]  # from where, to where


def spans_within(body: bytes, *, most: int) -> bool:
    """Whether no level of a body has more than `most` fields; none is counted behind an error."""
    places: Sequence[Place] = [(0, len(body))]
    for number in _LEVELS:
        found: list[Place] = []
        seen = 0
        for place in places:
            for field, inner in _fields(body, place):
                seen += 1
                if seen > most:
                    return False
                if field == number:
                    found.append(inner)
        places = found
    return True


def _fields(body: bytes, place: Place) -> Iterator[tuple[int, Place]]:
    """The numbers of a message's fields, and where their content stands; ends where it is none."""
    at, end = place
    while at < end:
        tag, at = _varint(body, at, end)
        kind = tag & 7
        if kind == _MESSAGE:
            length, at = _varint(body, at, end)
        elif kind == _VARINT:
            length = _varint(body, at, end)[1] - at
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        elif kind in (_GROUP, _GROUP_END):  # what stands in it is counted as beside it
            length = 0
        else:
            return
        if at + length > end:
            return
        yield tag >> 3, (at, at + length)
        at += length


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends; ten bytes at most."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value, at
