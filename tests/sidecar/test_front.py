"""The listener on real sockets: limits, deadlines, pipelining, and what never goes upstream."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.sidecar.engine import FakeEngine
from tests.sidecar.stack import KEY, chat, in_loop, split_answer, stack

BODY = json.dumps(chat(max_tokens=1)).encode()
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer " + KEY.encode() + b"\r\n"
)


def request(extra: bytes = b"", body: bytes = BODY) -> bytes:
    return HEAD + extra + b"content-length: %d\r\n\r\n" % len(body) + body


@in_loop
async def test_a_chunked_body_is_rewritten(tmp_path: Path) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:9], BODY[9:]))
    raw = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    async with stack(tmp_path) as world:
        status, _, _ = split_answer(await world.raw(raw))
    assert status == 200
    assert "content-length:" in world.engine.heads[0]
    assert "transfer-encoding" not in world.engine.heads[0]


@in_loop
async def test_the_forwarded_head_is_ours(tmp_path: Path) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with stack(tmp_path) as world:
        _, headers, _ = await world.post(BODY, traceparent=trace, x_forwarded_for="1.2.3.4")
        await world.quiet()
    lines = world.engine.heads[0].lower().split("\r\n")
    assert lines[0] == "post /v1/chat/completions http/1.1"
    assert f"x-request-id: {headers['x-request-id']}" in lines
    assert f"traceparent: {trace}" in lines
    assert not any(
        line.startswith(("authorization", "x-forwarded", "connection")) for line in lines
    )
    (event,) = world.plane.events.values()
    assert event.session == "a" * 32


@in_loop
async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    async with stack(tmp_path) as world:
        raw = await world.raw(request() + get * 500 + last)
    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 501
    assert raw.count(b"HTTP/1.1 404 Not Found\r\n") == 1


@in_loop
async def test_what_follows_a_refused_request_is_not_read(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        raw = await world.raw(b"BAD\r\n\r\n" + request())
        assert world.engine.calls == 0
    assert raw.count(b"HTTP/1.1 ") == 1


@in_loop
async def test_bytes_may_come_one_by_one(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        for byte in request(b"connection: close\r\n"):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        status, _, _ = split_answer(await reader.read())
        writer.close()
    assert status == 200


@in_loop
async def test_limits_of_size(tmp_path: Path) -> None:
    async with stack(tmp_path, max_body_bytes=1000) as world:
        long_head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 40_000
        assert split_answer(await world.raw(long_head))[0] == 431
        assert split_answer(await world.raw(request(body=b"x" * 1001)))[0] == 413
        chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n7D0\r\n" + b"x" * 900
        assert split_answer(await world.raw(chunked))[0] == 413
        assert world.engine.calls == 0


@in_loop
async def test_a_large_body_needs_a_known_key_before_it_is_read(tmp_path: Path) -> None:
    stranger = HEAD.replace(KEY.encode(), b"cmp_live_stranger_x")
    raw = stranger + b"content-length: 1000000\r\n\r\n"
    async with stack(tmp_path) as world:
        status, _, body = split_answer(await world.raw(raw))
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@in_loop
async def test_slow_heads_and_bodies_are_given_up(tmp_path: Path) -> None:
    async with stack(tmp_path, head_timeout=0.2, body_timeout=0.2) as world:
        assert split_answer(await world.raw(b"GET /heal"))[0] == 408
        assert split_answer(await world.raw(request()[:-5]))[0] == 408
        assert await world.raw(b"") == b""


@in_loop
async def test_expect_continue(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = HEAD + b"expect: 100-continue\r\nconnection: close\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n" % len(BODY))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        status, _, _ = split_answer(await reader.read())
        writer.close()
    assert status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/models", 401),
        ("GET", "/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/metrics", 405),
        ("POST", "/v1/images/generations", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/sidecar/v1/hello", 404),
    ],
)
def test_routes(tmp_path: Path, method: str, path: str, status: int) -> None:
    @in_loop
    async def test() -> None:
        lines = "host: x\r\nconnection: close\r\ncontent-length: 0"
        raw = f"{method} {path} HTTP/1.1\r\n{lines}\r\n\r\n"
        async with stack(tmp_path) as world:
            answer, _, _ = split_answer(await world.raw(raw.encode()))
        assert answer == status
        assert world.engine.calls == 0

    test()


@pytest.mark.parametrize("key", ["", "x", "Bearer", "cmp_live_agent1_secret ", "ü", "a" * 5000])
def test_malformed_keys_are_401(tmp_path: Path, key: str) -> None:
    @in_loop
    async def test() -> None:
        async with stack(tmp_path) as world:
            raw = request(b"connection: close\r\n").replace(
                b"Bearer " + KEY.encode(), b"Bearer " + key.encode("latin-1") + b"!"
            )
            status, _, body = split_answer(await world.raw(raw))
        assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")

    test()


@in_loop
async def test_metrics_count_what_happened(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        await world.post(BODY)
        await world.post(b"{")
        raw = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        _, _, text = split_answer(await world.raw(raw))
    lines = text.decode().split("\n")
    calls = (
        'comptroller_sidecar_requests_total{endpoint="chat/completions",outcome="completed"} 1.0'
    )
    assert calls in lines
    assert 'comptroller_sidecar_refusals_total{reason="invalid_json"} 1.0' in lines
    assert "comptroller_sidecar_ready 1.0" in lines


@in_loop
async def test_our_own_headers_are_checked(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        bad_tags, _, _ = await world.post(BODY, x_comptroller_tags="nonsense")
        bad_session, _, _ = await world.post(BODY, x_comptroller_session="a b")
        good, _, _ = await world.post(BODY, x_comptroller_tags="team=red, run=7")
        claude = {"x_claude_code_session_id": "s", "x_claude_code_agent_id": "child"}
        await world.post(BODY, **claude)
        await world.quiet()
    assert (bad_tags, bad_session, good) == (400, 400, 200)
    first, second = sorted(world.plane.events.values(), key=lambda event: event.session)
    assert first.tags == {"team": "red", "run": "7"}
    assert second.session == "child"


@in_loop
async def test_a_client_that_does_not_read_holds_the_engine_back(tmp_path: Path) -> None:
    engine = FakeEngine(context=1_000_000)
    async with stack(tmp_path, engine=engine, context_window=1_000_000) as world:
        _, writer = await asyncio.open_connection("127.0.0.1", world.port, limit=1_024)
        body = json.dumps(chat(max_tokens=500_000, stream=True)).encode()
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        before = -1
        while engine.output_tokens > before:
            before = engine.output_tokens
            await asyncio.sleep(0.3)
        writer.transport.abort()
    assert 0 < before < 60_000  # with the kernel's own buffers it is 85,000


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/v1/messages", "error"),
        (b"http://x/v1/messages", "error"),
        (b"/v1/messages?a=%", "error"),
        (b"/api/chat", str),
        (b"/v1/chat/completions", dict),
        (b"/nowhere", dict),
    ],
)
def test_what_cannot_be_read_is_refused_in_the_words_of_its_path(
    tmp_path: Path, path: bytes, kind: object
) -> None:
    """Anthropic's errors have a type beside them, Ollama's are a text, OpenAI's an object."""
    start = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\n"
    malformed = start + b"bad header\r\n\r\n"
    late = start + b"content-length: 9"
    large = start + b"content-length: 1000000000\r\n\r\n"
    endless = start + b"x: " + b"a" * 40_000

    @in_loop
    async def test() -> None:
        async with stack(tmp_path, head_timeout=0.2) as world:
            for request in (malformed, late, large, endless):
                body = json.loads(split_answer(await world.raw(request))[2])
                assert isinstance(body["error"], str if kind is str else dict)
                assert (body.get("type") == "error") == (kind is not str and kind is not dict)

    test()
