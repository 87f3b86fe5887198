"""Bodies of requests: what is accepted is what Python's own parser reads, with each key once."""

import json
import random
from typing import Any

from enforcement.rules.dialects import DIALECTS
from enforcement.rules.requests import RequestError, object_of
from tests.fuzz.target import Target, require
from tests.hostile.case import BODY
from tests.hostile.cases import GROUPS
from tests.rules.dialects.samples import BODIES

_WORDS = (
    b'{|}|[|]|:|,|"|\\|\\"|\\\\|\\u0022|\\u005c|\\n|null|true|1|-1|1e5|"a"|"a":|"model":|"m":|, | : '
    b'|"max_tokens":5|"n":2|\x00|\xff|\xef\xbb\xbf|\\ud800|{"a":1,"a":2}'
).split(b"|")
_SEEDS = (
    BODY,
    *(json.dumps(body).encode() for body in BODIES.values()),
    b'{"a": "b: \\"c\\": {", "b\\\\": [{"a": 1}, {"a": ":"}], "c": {"d": "\\\\\\""}}',
    *(case.raw.partition(b"\r\n\r\n")[2][:2_000] for case in GROUPS["bodies"]),
)


def check(data: bytes, dice: random.Random) -> str:
    for dialect in DIALECTS.values():
        try:
            dialect.parse(data)
        except RequestError:
            continue
    try:
        value, encoded = object_of(data)
    except RequestError as error:
        return f"refused: {error.code}"
    theirs = json.loads(data, object_pairs_hook=_unique)
    require(value == theirs, f"Python reads {theirs!r}")
    require(json.loads(encoded) == theirs, f"what goes on is {encoded!r}")
    return "accepted"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    require(len(dict(pairs)) == len(pairs), f"a key is doubled: {pairs}")
    return dict(pairs)


TARGET = Target(
    "body",
    "no exception but ours in any dialect; each key once; Python's own parser reads the same",
    _SEEDS,
    tuple(_WORDS),
    check,
)
