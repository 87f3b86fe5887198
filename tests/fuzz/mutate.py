"""Inputs out of seeds: small damages, one on top of another, and words that mean something."""

import itertools
import random
from collections.abc import Callable, Sequence

MAX_BYTES = 16 * 1024
_SPECIAL = b'\x00\t\n\x0b\x0c\r\x1f !"#%+,-./0:;<=>?@[\\]^_`{|}~\x7f\x80\x85\xa0\xff'

Damage = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> bytes:
    """One input: a seed, or two spliced, with up to eight damages."""
    data = bytearray(dice.choice(seeds))
    if dice.random() < 0.15:
        other = dice.choice(seeds)
        data[_at(data, dice) :] = other[_at(other, dice) :]
    for _ in range(dice.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        dice.choice(_DAMAGES)(data, dice, words)
    return bytes(data[:MAX_BYTES])


def pieces_of(data: bytes, dice: random.Random) -> list[bytes]:
    """The same bytes as they could arrive: one by one, in a few reads, or cut at line ends."""
    if len(data) <= 512 and dice.random() < 0.3:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = {_at(data, dice) for _ in range(dice.randint(1, 6))}
    for mark in (b"\r", b"\n"):
        at = data.find(mark, _at(data, dice))
        if at >= 0 and dice.random() < 0.5:
            cuts |= {at, at + 1}
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def _at(data: bytes | bytearray, dice: random.Random) -> int:
    return dice.randint(0, len(data))


def _flip(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _replace(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.choice(_SPECIAL)


def _insert(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    data.insert(_at(data, dice), dice.choice(_SPECIAL))


def _insert_word(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    at = _at(data, dice)
    data[at:at] = dice.choice(words)


def _replace_word(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    old, new = dice.choice(words), dice.choice(words)
    at = data.find(old, _at(data, dice))
    if at >= 0:
        data[at : at + len(old)] = new


def _delete(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    at = _at(data, dice)
    del data[at : at + dice.choice((1, 1, 2, 4, 16, 64))]


def _repeat(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    at = _at(data, dice)
    piece = data[at : at + dice.choice((1, 4, 32, 128))]
    data[at:at] = piece * dice.choice((1, 1, 2, 40))


def _repeat_line(data: bytearray, dice: random.Random, words: Sequence[bytes]) -> None:
    start = data.find(b"\n", _at(data, dice)) + 1
    end = data.find(b"\n", start) + 1
    if 0 < start < end:
        data[start:start] = data[start:end]


_DAMAGES: tuple[Damage, ...] = (
    _flip,
    _replace,
    _insert,
    _insert_word,
    _insert_word,
    _replace_word,
    _replace_word,
    _delete,
    _repeat,
    _repeat_line,
)
