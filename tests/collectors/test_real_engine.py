"""Against the real model server: exact counts, aborted requests included."""

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from enforcement.collectors.base import Reading
from enforcement.collectors.fetch import fetch
from enforcement.collectors.registry import read_page
from tests.collectors.modelserver import chat, metrics_text, model_server

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="the extra 'demo' is not installed")
    with model_server() as url:
        yield url


def reading(url: str) -> Reading:
    metrics_text(url)  # waits until no request runs
    answer = asyncio.run(fetch(url, "/metrics"))
    collector, found = read_page(answer.body.decode(), answer.headers)
    assert collector.engine == "llama.cpp"
    return found


def test_a_reading_grows_by_exactly_what_a_call_used(engine: str) -> None:
    before = reading(engine)
    usage = chat(engine, "Say something long.", max_tokens=24)
    after = reading(engine)
    assert after.generation_tokens - before.generation_tokens == 24
    assert after.prompt_tokens - before.prompt_tokens == usage["prompt_tokens"]
    assert after.life == before.life != ""


def test_tokens_of_an_aborted_call_are_counted(engine: str) -> None:
    before = reading(engine)
    parts = urlsplit(engine)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    asked = {
        "messages": [{"role": "user", "content": "Go on and on."}],
        "max_tokens": 500,
        "ignore_eos": True,
        "stream": True,
    }
    connection.request("POST", "/v1/chat/completions", json.dumps(asked))
    answer = connection.getresponse()
    for _ in range(20):
        answer.readline()
    answer.close()
    connection.close()
    time.sleep(0.5)
    made = reading(engine).generation_tokens - before.generation_tokens
    assert 5 <= made < 500


def test_another_life_has_another_name(engine: str) -> None:
    with model_server() as other:
        assert reading(other).life not in ("", reading(engine).life)
