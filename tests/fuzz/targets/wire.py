"""Messages between sidecar and control plane: our error or a value that says itself again."""

import random
from typing import Any

import msgspec

from enforcement.rules import records
from enforcement.rules.sessiontree import Level, Lineage, LineageError, key_of, seal, unseal
from enforcement.rules.wire import (
    Delegate,
    Grant,
    Header,
    Hello,
    LeaseReport,
    Order,
    Sync,
    SyncAnswer,
    Usage,
    UsageAnswer,
    UsageEvent,
    Welcome,
)
from tests.fuzz.target import Target, require

_KINDS: tuple[Any, ...] = (
    Delegate,
    Grant,
    Header,
    Hello,
    LeaseReport,
    Order,
    Sync,
    SyncAnswer,
    Usage,
    UsageAnswer,
    UsageEvent,
    Welcome,
)
_KEY = key_of(b"pepper")
_LINEAGE = Lineage("delegation-1", [Level("child", "agent", ["budget-1"]), Level("s", "a", [])])


def _example(kind: Any) -> bytes:
    """A message whose fields hold the simplest values of their types."""
    return msgspec.json.encode(_simple(msgspec.json.schema(kind), msgspec.json.schema(kind)))


def _simple(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _simple(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return _simple(schema["anyOf"][0], root)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "object":
        return {name: _simple(part, root) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        items = schema.get("items")
        return [_simple(items, root)] if isinstance(items, dict) else []
    return {"integer": 1, "number": 1, "boolean": True, "string": "a"}.get(str(kind))


_SEEDS = (*(_example(kind) for kind in _KINDS), seal(_LINEAGE, key=_KEY).encode())
_WORDS = (
    b'{|}|[|]|:|,|"|null|true|false|-1|0|1|2.5|1e30|9223372036854775807|9223372036854775808'
    b'|18446744073709551616|"header"|"spool"|"epoch"|"reports"|"lease"|"used"|"sequence"|\\u0000'
    b"|\xff|\xed\xa0\x80|A|_|-|="
).split(b"|")


def check(data: bytes, dice: random.Random) -> str:
    read = 0
    for kind in _KINDS:
        try:
            value = msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
        read += 1
        again = msgspec.json.decode(msgspec.json.encode(value), type=kind)
        require(again == value, f"{kind.__name__} does not say itself again")
    try:
        records.decode(data)
    except (msgspec.MsgspecError, ValueError):
        pass
    _check_token(data)
    return "read" if read else "refused"


def _check_token(data: bytes) -> None:
    token = data.decode("latin-1")
    try:
        lineage = unseal(token, key=_KEY)
    except LineageError:
        return
    require(lineage == _LINEAGE, f"a forged delegation is believed: {lineage}")


TARGET = Target(
    "wire",
    "no exception but ours; what is read says itself again; no forged delegation is believed",
    _SEEDS,
    tuple(_WORDS),
    check,
)
