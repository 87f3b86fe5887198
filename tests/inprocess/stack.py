"""A model server with the middleware in it, under uvicorn, and a control plane: one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from enforcement.inprocess import Comptroller
from enforcement.inprocess.middleware import Host
from enforcement.sidecar.desk import Desk
from tests.inprocess.toy import Toy
from tests.sidecar.plane import TOKEN, Plane
from tests.sidecar.stack import PRICE, Caller, agent


class Server(uvicorn.Server):
    """uvicorn without a claim on the test's signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Inprocess(Caller):
    """What a test holds on to."""

    def __init__(self, toy: Toy, plane: Plane, middleware: Comptroller, port: int) -> None:
        self.toy = toy
        self.plane = plane
        self.middleware = middleware
        self.port = port

    @property
    def host(self) -> Host:
        assert self.middleware.host is not None
        return self.middleware.host

    @property
    def desk(self) -> Desk:
        return self.host.desk


def environment(plane: Plane, spool_dir: Path, **more: str) -> dict[str, str]:
    return {
        "COMPTROLLER_CONTROL_URL": plane.url,
        "COMPTROLLER_SIDECAR_TOKEN": TOKEN,
        "COMPTROLLER_SPOOL_DIR": str(spool_dir),
        "COMPTROLLER_NODE": "node",
        "COMPTROLLER_SHUTDOWN_TIMEOUT": "1",
        "COMPTROLLER_METERED_MARGIN": "64",
    } | more


@asynccontextmanager
async def inprocess(
    spool_dir: Path,
    *,
    toy: Toy | None = None,
    plane: Plane | None = None,
    environ: dict[str, str] | None = None,
    root_path: str = "",
) -> AsyncIterator[Inprocess]:
    """Start everything, wait until it serves, and end it well."""
    toy = toy or Toy()
    plane = plane or Plane(agents=[agent()], prices=[PRICE])
    async with plane.running():
        middleware = Comptroller(toy, environ=environment(plane, spool_dir, **(environ or {})))

        async def as_starlette(scope, receive, send) -> None:  # names the application in each scope
            await middleware(dict(scope) | {"app": toy}, receive, send)

        config = uvicorn.Config(
            as_starlette,
            host="127.0.0.1",
            port=0,
            log_level="error",
            root_path=root_path,
            timeout_graceful_shutdown=2,
        )
        server = Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        found = Inprocess(toy, plane, middleware, port)
        if toy.lifespan:
            await ready(found)
        try:
            yield found
        finally:
            server.should_exit = True
            await serving


async def ready(found: Inprocess) -> None:
    async with asyncio.timeout(5):
        while found.desk.view is None or not found.desk.router.complete:
            await asyncio.sleep(0.005)
