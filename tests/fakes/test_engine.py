"""The oracle itself: it must count what it says, and misbehave as it is told to."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.fakes.engine import DIES_AFTER, MISDEEDS

PROMPT = [{"role": "user", "content": "Tell me."}]
PROMPT_TOKENS = len(json.dumps(PROMPT)) // 4 + 1


@contextlib.contextmanager
def engine(*flags: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fakes.engine", "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


@pytest.fixture(scope="module")
def liar() -> Iterator[str]:
    with engine("--misbehave") as url:
        yield url


def get(url: str) -> Any:
    with urlopen(url, timeout=5) as answer:  # noqa: S310 -- our own engine
        return json.load(answer)


def asked(model: str, **fields: Any) -> bytes:
    body = {"model": model, "messages": PROMPT, "stream": True, "max_tokens": 40}
    return json.dumps(body | {"stream_options": {"include_usage": True}} | fields).encode()


def call(url: str, body: bytes) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    connection.request("POST", "/v1/chat/completions", body)
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.read()


def events(text: bytes) -> list[Any]:
    lines = text.decode().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def usages(text: bytes) -> list[Any]:
    return [event["usage"]["completion_tokens"] for event in events(text) if "usage" in event]


def truth(url: str, model: str) -> tuple[int, int, int]:
    said = get(f"{url}/truth")["models"][model]
    return said["requests"], said["prompt_tokens"], said["output_tokens"]


def test_tokens_usage_truth_and_counters_agree() -> None:
    with engine() as url:
        status, text = call(url, asked("fast", max_tokens=33))
        contents = [
            choice["delta"]["content"]
            for event in events(text)
            for choice in event["choices"]
            if choice["delta"]
        ]
        assert (status, len(contents), usages(text)) == (200, 33, [33])
        assert text.endswith(b"data: [DONE]\n\n")
        call(url, asked("fast", stream=False))
        assert truth(url, "fast") == (2, PROMPT_TOKENS + 200, 33 + 110)
        said = get(f"{url}/truth")
        assert (said["output_tokens"], said["after_disconnect"]) == (143, 0)
        with urlopen(f"{url}/metrics", timeout=5) as page:  # noqa: S310 -- our own engine
            assert b"\nllamacpp:tokens_predicted_total 143\n" in page.read()
        assert call(url, asked("unknown"))[0] == 404


def test_what_is_made_after_a_disconnect_is_counted() -> None:
    with engine("--rate", "200", "--abort-tokens", "3") as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port or 0)) as caller:
            body = asked("fast", max_tokens=5_000)
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
            caller.sendall(head.encode() + b"\r\n\r\n" + body)
            seen = b""
            while seen.count(b"river") < 5:
                seen += caller.recv(65_536)
        deadline = time.monotonic() + 5
        while not get(f"{url}/truth")["after_disconnect"]:
            assert time.monotonic() < deadline
        said = get(f"{url}/truth")
        assert said["after_disconnect"] == 3
        assert 8 <= said["output_tokens"] < 500


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("fast", [40]),
        ("one-byte-chunks", [40]),
        ("late", [40]),
        ("no-done", [40]),
        ("no-usage", []),
        ("negative-usage", [-7]),
        ("huge-usage", [10**15]),
        ("fractional-usage", [2.5]),
        ("shrinking-usage", [40, 1]),
    ],
)
def test_it_lies_as_it_is_told_but_counts_truly(liar: str, model: str, told: list[Any]) -> None:
    before = truth(liar, model)
    status, text = call(liar, asked(model))
    assert (status, usages(text)) == (200, told)
    assert text.endswith(b"data: [DONE]\n\n") == (model != "no-done")
    after = truth(liar, model)
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, PROMPT_TOKENS, 40]


def test_it_fails_as_it_is_told(liar: str) -> None:
    assert call(liar, asked("fails"))[0] == 500
    assert call(liar, asked("answers-html")) == (200, b"<html><body>Welcome!</body></html>")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        call(liar, asked("dies"))
    assert truth(liar, "dies") == (1, PROMPT_TOKENS, DIES_AFTER)
    parts = urlsplit(liar)
    hanging = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=0.3)
    hanging.request("POST", "/v1/chat/completions", asked("hangs"))
    with contextlib.closing(hanging), pytest.raises(TimeoutError):
        hanging.getresponse()
    for model in ("fails", "answers-html", "hangs"):
        assert truth(liar, model) == (0, 0, 0)


def test_every_misdeed_is_served(liar: str) -> None:
    listed = {model["id"] for model in get(f"{liar}/v1/models")["data"]}
    assert listed == {"fast", *MISDEEDS}
