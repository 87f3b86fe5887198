"""One engine, asked three ways, and its counters beside what its answers said."""

import asyncio
import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from enforcement.collectors.base import CollectorError, Reading
from enforcement.collectors.fetch import Answer, fetch
from enforcement.collectors.registry import BY_ENGINE, read_page
from tests.collectors.engines.starts import STARTS, Engine

ASKED = 24
LONG = 400
LEFT_AFTER = 8  # lines of a stream, until its client leaves
QUIET_S = 60
PAGE_S = 20.0  # a busy machine is no fault of the engine
STILL_S = 1.5  # two readings so far apart that are alike: nothing runs


@dataclass(frozen=True)
class Seen:
    """What was found: the pages as they are, and the sentences for people."""

    pages: tuple[Answer, ...]
    words: tuple[str, ...]


class WrongCountsError(AssertionError):
    """The counters do not say what the answers said."""


def tried(name: str) -> Seen:
    """Start an engine and try it. Raises WrongCountsError."""
    with STARTS[name]() as engine:
        if not engine.pages:
            return Seen((), _without_counters(name, engine))
        words = [_complete(engine, stream=False), _complete(engine, stream=True), _left(engine)]
        for page in engine.pages[1:]:
            reading = _read(*page)
            if (reading.prompt_tokens, reading.generation_tokens) != (0, 0):
                raise WrongCountsError(f"{page} counts what the front end counts: {reading}")
        return Seen(tuple(_page(*page) for page in engine.pages), tuple(words))


def _complete(engine: Engine, *, stream: bool) -> str:
    """A whole answer: counted exactly."""
    before = _still(engine)
    usage = _ask(engine, ASKED, stream=stream)
    after = _still(engine)
    read = after.prompt_tokens - before.prompt_tokens
    made = after.generation_tokens - before.generation_tokens
    told = usage["prompt_tokens"], usage["completion_tokens"]
    how = "streamed" if stream else "whole"
    words = f"{how}: told {told[0]} + {told[1]}, counted {read} + {made}"
    if (read, made) != told or told[1] != ASKED:
        raise WrongCountsError(words)
    return words


def _left(engine: Engine) -> str:
    """A client that leaves: what was made for it is counted, and the engine stops."""
    before = _still(engine)
    lines = _leave(engine)
    after = _still(engine)
    made = after.generation_tokens - before.generation_tokens
    words = f"left after {lines} of {LONG}: counted {made}"
    if not 0 < made < LONG:
        raise WrongCountsError(words)
    return words


def _without_counters(name: str, engine: Engine) -> tuple[str, ...]:
    """It has no page, and tells its state: use is in its answers alone."""
    try:
        page = _page(engine.url, "/metrics")
    except CollectorError as error:
        words = str(error)
    else:
        raise WrongCountsError(f"it has a page of metrics: {page.body[:80]!r}")
    state = _page(engine.url, BY_ENGINE[name].metrics_path)
    told = read_page(state.body.decode(), state.headers)[0].engine
    if told != name:
        raise WrongCountsError(f"its state is read as that of {told}")
    usages = [_ask(engine, ASKED, stream=stream) for stream in (False, True)]
    made = [usage["completion_tokens"] for usage in usages]
    if made != [ASKED, ASKED]:
        raise WrongCountsError(f"asked {ASKED}, its answers tell {made}")
    return (
        f"no counters ({words}); it is read as alive",
        f"its answers tell {made[0]} and, streamed, {made[1]}",
    )


def _page(url: str, path: str) -> Answer:
    return asyncio.run(fetch(url, path, within=PAGE_S))


def _read(url: str, path: str) -> Reading:
    answer = _page(url, path)
    return read_page(answer.body.decode(), answer.headers)[1]


def _still(engine: Engine) -> Reading:
    """A reading once nothing runs: engines book when a request ends, some a moment later."""
    deadline = time.monotonic() + QUIET_S
    before = _read(*engine.pages[0])
    while True:
        time.sleep(STILL_S)
        now = _read(*engine.pages[0])
        if now == before and not now.requests_running:
            return now
        if time.monotonic() > deadline:
            raise WrongCountsError(f"it does not come to rest: {now}")
        before = now


def _ask(engine: Engine, tokens: int, *, stream: bool) -> dict[str, Any]:
    """The usage of one answer of so many tokens."""
    connection, answer = _open(engine, tokens, stream=stream)
    try:
        if not stream:
            usage: dict[str, Any] = json.load(answer)["usage"]
            return usage
        said = [line[5:] for line in answer if line.startswith(b"data: {")]
        told = [json.loads(line).get("usage") for line in said]
        return next(usage for usage in reversed(told) if usage)
    finally:
        connection.close()


def _leave(engine: Engine) -> int:
    connection, answer = _open(engine, LONG, stream=True)
    lines = 0
    while lines < LEFT_AFTER:
        lines += answer.readline().startswith(b"data: {")
    answer.close()
    connection.close()
    return lines


def _open(
    engine: Engine, tokens: int, *, stream: bool
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    parts = urlsplit(engine.url)
    asked: dict[str, Any] = {
        "model": engine.model,
        "messages": [{"role": "user", "content": "Say something long."}],
        "max_tokens": tokens,
        "stream": stream,
    }
    if not engine.ends:
        asked["ignore_eos"] = True
    if stream:
        asked["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    head = {"content-type": "application/json", "authorization": f"Bearer {engine.key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), head)
    answer = connection.getresponse()
    if answer.status != 200:
        raise WrongCountsError(f"{engine.url} answers {answer.status}: {answer.read()[:300]!r}")
    return connection, answer
