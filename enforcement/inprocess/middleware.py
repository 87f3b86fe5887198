"""The middleware: who comes in is held for, who leaves is settled for, as in the sidecar.

1. The book begins when the server has started, at the latest with the first request, and goes
   home when the server says that it stops. A server that never says so leaves the spool as a
   killed sidecar would: nothing is lost, running holds are charged.
2. Where the book cannot go on, every call is refused. The server itself is never stopped.
3. Routes that we do not know are 404. Only pages that cost nothing are passed on, to GET and HEAD.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from enforcement.inprocess.asgi import App, Heads, Message, Receive, Scope, Send, path_of
from enforcement.inprocess.exchange import ClientGoneError, Exchange, Outbox, read_body
from enforcement.inprocess.inside import Inside
from enforcement.inprocess.settings import Settings, read_settings
from enforcement.rules.wire import UpstreamInfo
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.http1 import HttpError, RequestHead
from enforcement.sidecar.journal import SpoolError, SpoolTakenError
from enforcement.sidecar.routes import Routes
from enforcement.sidecar.worker import Worker

OURS = b"/comptroller"  # our own health and metrics, beside the engine's
MAX_WORKERS = 256

log = logging.getLogger(__name__)


class Comptroller:
    """ASGI middleware around a serving node. Takes no arguments but the application.

    Raises:
        ConfigError: the environment lacks something or holds what cannot be used.
    """

    def __init__(self, app: App, *, environ: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._settings = read_settings(os.environ if environ is None else environ)
        self._outbox = Outbox()
        self._line = Inside(app, self._outbox)
        self.host: Host | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the server's own start and stop."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
        elif kind != "http":
            await send({"type": "websocket.close", "code": 1008})  # no dialect of ours
        elif scope["method"] in ("GET", "HEAD") and path_of(scope) in self._settings.pages:
            await self._app(scope, receive, send)
        else:
            await self._begun(scope).answer(scope, receive, send)

    def _begun(self, scope: Scope) -> "Host":
        """The book at work; begun now if the server has told nothing of its start.

        Raises:
            SpoolError: the spool cannot be used.
        """
        if self.host is None:
            self._line.learn(scope)
            self.host = Host(self._settings, self._line, self._outbox)
            self.host.begin()
        return self.host

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin after the application has, end before it does."""

        async def hear() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self.host is not None:
                await self.host.end()
            return message

        async def say(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    self._begun(scope)
                except SpoolError as error:
                    message = {"type": "lifespan.startup.failed", "message": str(error)}
            await send(message)

        await self._app(scope, hear, say)


class Node(Upstream):
    """The serving node that we are in."""

    def info(self) -> UpstreamInfo:
        """What the control plane learns: nothing to read where no address was told."""
        info = super().info()
        return info if info.base_url else replace(info, metrics_path="")


class Host:
    """One process of the server: its book, and the requests that are being answered."""

    def __init__(self, settings: Settings, line: Inside, outbox: Outbox) -> None:
        self._outbox = outbox
        self._worker = _worker(settings, line, on_fenced=self._stop)
        self.desk = self._worker.desk
        self._config = self._worker.config
        self._routes = Routes(self.desk)
        self._heads = Heads()
        self._exchanges: set[Exchange] = set()
        self._patience_ns = int(self._config.body_timeout * 1_000_000_000)
        self._tasks: list[asyncio.Task[None]] = []
        self.desk.metrics.gauge("connections", "Requests at hand", lambda: len(self._exchanges))

    def begin(self) -> None:
        """Talk to the control plane from now on."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._worker.sweep(self._sweep), name="comptroller-sweep"),
            loop.create_task(self._worker.talk(), name="comptroller-talk"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)
        log.info("in-process, spool %s", self._worker.spool)

    def _stop(self) -> None:
        """A book that cannot go on may not spend: refuse everything (fail closed)."""
        self.desk.closing = True
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._stop()
        if not task.cancelled():
            log.critical("%s ended", task.get_name(), exc_info=task.exception())

    def _sweep(self, now_ns: int) -> None:
        for exchange in list(self._exchanges):
            exchange.check_stuck(now_ns, patience_ns=self._patience_ns)

    async def end(self) -> None:
        """Let running calls end, and send home what is left."""
        await self._worker.drain()
        self._stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.say_goodbye()
        self._worker.close()

    # ------------------------------------------------------------------ requests

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and stay until its answer is complete or its client gone."""
        exchange = Exchange(self._outbox, send)
        self._exchanges.add(exchange)
        try:
            await self._take(exchange, scope, receive)
            await exchange.flush()
            await exchange.wait(receive)
        except ClientGoneError:
            pass
        finally:
            self._exchanges.discard(exchange)
            if not exchange.ended:
                exchange.gone()

    async def _take(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        routes, config = self._routes, self._config
        outbox = self._outbox
        try:
            head = _own_page(self._heads.of(scope))
            if head.length is not None and head.length > config.max_body_bytes:
                raise HttpError("the body is too large", status=413)
            routes.check_head(head)
            body = await read_body(
                receive, limit=config.max_body_bytes, within_s=config.body_timeout
            )
        except HttpError as error:
            exchange.keep_alive = False
            outbox.open()
            routes.refuse_http(exchange, error, path=path_of(scope).encode(errors="replace"))
        else:
            outbox.open()
            routes.handle(exchange, head, body)
        last = outbox.close()
        if last is not None and last is not exchange:
            outbox.post(last)


def _worker(settings: Settings, line: Inside, *, on_fenced: Callable[[], None]) -> Worker:
    """The book of this process: the first spool that no sibling uses."""
    for number in range(MAX_WORKERS):
        config = settings.for_worker(number)
        node = Node(config.upstreams[0], config, line=line)
        try:
            return Worker(config, (node,), on_fenced=on_fenced)
        except SpoolTakenError:
            continue
    raise SpoolError(f"{settings.config.spool_dir}: {MAX_WORKERS} processes use it already")


def _own_page(head: RequestHead) -> RequestHead:
    """Our own pages lie below a prefix; without it they are the engine's, or nobody's."""
    if head.path in (b"/healthz", b"/readyz", b"/metrics"):
        return replace(head, path=b"/comptroller/not-here")
    if head.path.startswith(OURS + b"/") and not head.path.startswith(OURS + b"/v1/"):
        return replace(head, path=head.path.removeprefix(OURS))
    return head
