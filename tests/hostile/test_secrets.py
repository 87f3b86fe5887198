"""What callers send stays out of logs, metrics, records and reports: a canary in every place.

Sessions, tags, `user` and `metadata` are not here: they say who calls, and are recorded for that.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enforcement.rules.policy import Unit
from tests.hostile.case import BODY, head, post, target
from tests.sidecar.engine import FakeEngine, Writer, send_json
from tests.sidecar.plane import Plane
from tests.sidecar.stack import KEY, PRICE, Stack, agent, budget, chat, in_loop, stack

CANARY = "canary5c1e"
_C = CANARY.encode()
_CLOSE = b"Connection: close"
KNOWN = KEY.encode()

REQUESTS = {
    "key": post(_CLOSE).replace(KNOWN, b"cmp_live_" + _C),
    "x-api-key": post(_CLOSE, b"X-Api-Key: " + _C),
    "header": post(_CLOSE, b"X-Note: " + _C),
    "header name": post(_CLOSE, b"X-%b: a" % _C),
    "cookie": post(_CLOSE, b"Cookie: a=" + _C),
    "query": target(b"/v1/chat/completions?key=" + _C, _CLOSE),
    "path": target(b"/v1/" + _C, _CLOSE),
    "host": post(_CLOSE, host=b"Host: %b.example\r\n" % _C),
    "malformed head": head(b"X: \x00" + _C),
    "malformed key": post(_CLOSE).replace(b"Bearer ", b"Basic " + _C),
    "malformed tags": post(_CLOSE, b"X-Comptroller-Tags: " + _C),
    "malformed delegation": post(_CLOSE, b"X-Comptroller-Delegation: " + _C),
    "prompt": post(_CLOSE, body=BODY.replace(b"hello", _C)),
    "unknown field": post(_CLOSE, body=BODY[:-1] + b',"%b":1}' % _C),
    "doubled key": post(_CLOSE, body=BODY[:-1] + b',"%b":1,"%b":1}' % (_C, _C)),
    "malformed body": post(_CLOSE, body=BODY + _C),
}


async def send_all(world: Stack) -> bytes:
    """Everything that callers could send, then what the sidecar shows of itself."""
    for raw in REQUESTS.values():
        await world.raw(raw)
    await world.post(
        chat(max_tokens=3, stream=True, messages=[{"role": "user", "content": CANARY}])
    )
    world.engine.script = echo
    await world.post(chat(max_tokens=3, messages=[{"role": "user", "content": CANARY}]))
    await world.quiet()
    pages = [b"/metrics", b"/healthz", b"/readyz"]
    asked = [b"GET %b HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n" % page for page in pages]
    return b"".join([await world.raw(raw) for raw in asked])


async def echo(engine: FakeEngine, body: dict[str, Any], writer: Writer) -> None:
    """A node that repeats the prompt in its error."""
    said = body["messages"][0]["content"]
    send_json(writer, {"error": {"message": f"too long: {said}"}}, status=400)


def test_a_canary_is_found_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: dict[str, str] = {}

    @in_loop
    async def test() -> None:
        plane = Plane(agents=[agent()], budgets=[budget(10_000, Unit.TOKENS)], prices=[PRICE])
        async with stack(tmp_path, engine=FakeEngine(kind="vllm"), plane=plane) as world:
            shown["pages"] = (await send_all(world)).decode("latin-1")
        assert any(CANARY in json.dumps(request) for request in world.engine.requests)
        told = (plane.hellos, plane.syncs, list(plane.events.values()), plane.refusals)
        shown["reports"] = msgspec.json.encode(told).decode()

    with caplog.at_level("DEBUG"):
        test()

    shown["logs"] = caplog.text + "".join(capfd.readouterr())
    shown["spool"] = "".join(
        path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()
    )
    assert [place for place, text in shown.items() if CANARY in text] == []
    assert [place for place, text in shown.items() if KEY.rpartition("_")[2] in text] == []
    assert all(len(text) > 100 for text in shown.values())


@in_loop
async def test_names_that_callers_invent_do_not_grow_the_metrics(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        raw = b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
        for round_number in range(2):
            for number in range(30):
                name = f"invented-{round_number}-{number}"
                await world.post(chat(model=name), x_comptroller_session=name)
                await world.raw(target(b"/v1/" + name.encode(), _CLOSE))
            if not round_number:
                before = (await world.raw(raw)).count(b"\n")
        after = await world.raw(raw)
    assert (after.count(b"\n"), b"invented" in after) == (before, False)
