"""What of a failed task may be kept: ids, numbers and places in our code, no text of anybody. Pure.

A prompt, a key or a password could stand in any other text, also in that of an exception.
"""

import hashlib
import json
import traceback
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

MOST_CHARS = 2_000  # of all arguments as JSON
MOST_ERROR_CHARS = 300
OURS = ("budgets", "controlplane", "enforcement", "skills")
KILLED = "ended without a word: killed, or past its time limit"


class Parcel(NamedTuple):
    """Arguments as they are kept. `whole`: nothing is missing."""

    arguments: dict[str, object]
    whole: bool
    digest: str


def parcel_of(positional: Sequence[object], named: Mapping[str, object]) -> Parcel:
    """Keep ids and numbers, say of everything else only that it was there."""
    text = json.dumps([list(positional), dict(named)], default=str, sort_keys=True)
    kept = {key[:64]: _kept(value) for key, value in named.items()}
    whole = not positional and kept == dict(named)
    if len(json.dumps(kept, default=str)) > MOST_CHARS:
        kept, whole = dict.fromkeys(list(kept)[:20], "…"), False
    return Parcel(kept, whole, hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def _kept(value: object) -> object:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str) and _is_id(value):
        return value
    if isinstance(value, list):
        return [_kept(one) for one in value]
    return "…"


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def words_of(error: BaseException) -> str:
    """`django.db.utils.OperationalError at budgets/domain/rollups.py:42`, without its message."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        parts = frame.filename.split("/")
        for number, part in enumerate(parts[:-1]):
            if part in OURS and not {"site-packages", "tests"} & set(parts):
                return f"{kind} at {'/'.join(parts[number:])}:{frame.lineno}"[:MOST_ERROR_CHARS]
    return kind[:MOST_ERROR_CHARS]


EMPTY = parcel_of((), {})
BATCHES = Parcel({}, whole=False, digest="batches")  # whatever their arguments
UNTOLD = Parcel({}, whole=False, digest="")  # nothing is known of them
