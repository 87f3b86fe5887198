"""Several nodes behind one sidecar, in one event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from enforcement.sidecar.config import Config, UpstreamConfig, parse_upstream
from enforcement.sidecar.service import Service
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import TOKEN, Plane
from tests.sidecar.stack import PRICE, Stack, agent, ready


def target(name: str, url: str, **fields: Any) -> UpstreamConfig:
    return replace(parse_upstream(f"{name}={url}", index=0, environ={}), **fields)


@asynccontextmanager
async def nodes(
    tmp_path: Path,
    engines: Sequence[FakeEngine],
    *,
    plane: Plane | None = None,
    every: dict[str, Any] | None = None,
    each: Sequence[dict[str, Any]] = (),
    **settings: Any,
) -> AsyncIterator[Stack]:
    """A sidecar before nodes `a`, `b`, … `every`: what all are configured with; `each`: one."""
    plane = plane or Plane(agents=[agent()], prices=[PRICE])
    settings = {"context_window": 1000, "shutdown_timeout": 1.0} | settings
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(plane.running())
        targets = []
        for n, engine in enumerate(engines):
            await stack.enter_async_context(engine.running())
            fields = (every or {}) | (each[n] if n < len(each) else {})
            targets.append(target("abcdefgh"[n], engine.url, **fields))
        config = Config(
            upstreams=tuple(targets),
            control_url=plane.url,
            token=TOKEN,
            spool_dir=tmp_path / "spool",
            listen_port=0,
            **settings,
        )
        service = Service(config)
        running = asyncio.create_task(service.run())
        found = Stack(engines[0], plane, service)
        try:
            await ready(found)
            yield found
        finally:
            service.stop()
            assert await running == 0
