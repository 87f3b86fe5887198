"""A whole small world for one test: engine, control plane and sidecar in one event loop."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from openai import AsyncOpenAI

from enforcement.rules.policy import AgentPolicy, BudgetPolicy, PricePolicy, Rates, ScopeKind, Unit
from enforcement.sidecar.config import Config, parse_upstream, with_dialects, with_passed
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.service import Service
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import TOKEN, Plane, key_policy

KEY = "cmp_live_agent1_secret"
AGENT = "agent-1"
PRICE = PricePolicy(id="price-1", model="toy", rates=Rates(input=1_000_000, output=2_000_000))


def in_loop(
    test: Callable[..., Coroutine[Any, Any, None]], *, within: float = 30
) -> Callable[..., None]:
    """Run an async test in a fresh event loop, never for longer than `within` seconds."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(within):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bounded())

    return run


def agent(**fields: Any) -> AgentPolicy:
    return AgentPolicy(id=AGENT, slug="agent", keys=[key_policy(KEY)], **fields)


def budget(limit: int, unit: Unit = Unit.USD, **fields: Any) -> BudgetPolicy:
    fields = {"id": f"budget-{unit}", "name": f"cap in {unit}"} | fields
    return BudgetPolicy(
        scope_kind=ScopeKind.AGENT, scope_id=AGENT, unit=unit, limit=limit, **fields
    )


class Caller:
    """Speaks to a port, and knows the desk behind it."""

    port: int
    desk: Desk

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def openai(self, key: str = KEY, **options: Any) -> AsyncOpenAI:
        options = {"max_retries": 0} | options
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, **options)

    async def post(
        self, body: dict[str, Any] | bytes, *, path: str = "/v1/chat/completions", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One raw request on a connection of its own: status, headers, body as sent."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request = (
            f"POST {path} HTTP/1.1\r\nhost: sidecar\r\n{lines}content-length: {len(data)}\r\n"
            "connection: close\r\n\r\n"
        ).encode() + data
        return split_answer(await self.raw(request))

    async def raw(self, request: bytes) -> bytes:
        """Send bytes, read until the sidecar closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def quiet(self) -> None:
        """Wait until nothing runs and all is told."""
        desk = self.desk
        async with asyncio.timeout(5):
            while desk.live or desk.unsent or desk.refusals or self._unsaid():
                await asyncio.sleep(0.01)

    def _unsaid(self) -> bool:
        lots = self.desk.book.lots.by_lease.values()
        return any(lot.said != lot.state() for lot in lots if not lot.acked)


class Stack(Caller):
    """What a test holds on to."""

    def __init__(self, engine: FakeEngine, plane: Plane, service: Service) -> None:
        self.engine = engine
        self.plane = plane
        self.service = service
        self.desk = service.desk

    @property
    def port(self) -> int:
        return self.service.port


def split_answer(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    if headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    return int(lines[0].split(" ")[1]), headers, body


def unchunked(body: bytes) -> bytes:
    parts = []
    while True:
        size_text, _, body = body.partition(b"\r\n")
        size = int(size_text, 16)
        if not size:
            assert body == b"\r\n"
            return b"".join(parts)
        parts.append(body[:size])
        assert body[size : size + 2] == b"\r\n"
        body = body[size + 2 :]


def events_of(body: bytes) -> list[Any]:
    """The events of a stream; the last one must be `[DONE]`."""
    frames = body.split(b"\n\n")
    assert frames.pop() == b""
    assert frames.pop() == b"data: [DONE]"
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


@asynccontextmanager
async def stack(
    spool_dir: Path,
    *,
    engine: FakeEngine | None = None,
    plane: Plane | None = None,
    **settings: Any,
) -> AsyncIterator[Stack]:
    """Start everything, wait until it serves, and end it well."""
    engine = engine or FakeEngine()
    plane = plane or Plane(agents=[agent()], prices=[PRICE])
    async with engine.running(), plane.running():
        service = Service(make_config(spool_dir, engine=engine, plane=plane, **settings))
        running = asyncio.create_task(service.run())
        found = Stack(engine, plane, service)
        await ready(found)
        try:
            yield found
        finally:
            service.stop()
            assert await running == 0


def make_config(
    spool_dir: Path,
    *,
    engine: FakeEngine,
    plane: Plane,
    dialects: Sequence[str] = (),
    passed: Sequence[str] = (),
    **settings: Any,
) -> Config:
    settings = {
        "context_window": 1000,
        "shutdown_timeout": 1.0,
        "metered_margin_tokens": 64,
    } | settings
    node = parse_upstream(f"node={engine.url}", index=0, environ={})
    declared = [f"node={','.join(dialects)}"] if dialects else []
    return Config(
        upstreams=with_passed(with_dialects([node], declared), [f"node={path}" for path in passed]),
        control_url=plane.url,
        token=TOKEN,
        spool_dir=spool_dir,
        listen_port=0,
        **settings,
    )


async def ready(found: Stack) -> None:
    async with asyncio.timeout(5):
        while found.service.desk.view is None or not found.service.desk.router.complete:
            await asyncio.sleep(0.005)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "toy", "messages": [{"role": "user", "content": "hello"}]} | fields
