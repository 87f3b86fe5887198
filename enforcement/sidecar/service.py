"""The life of a sidecar: open the spool, listen, keep in step, drain, go.

`run` returns the exit code: 0 after an orderly end, 1 if the spool or the port cannot be had,
3 if another life of this spool has taken over.
"""

import asyncio
import gc
import logging
import os
import signal
from contextlib import suppress

from enforcement.sidecar.config import Config
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.front import Front, HttpClient
from enforcement.sidecar.journal import SpoolError
from enforcement.sidecar.routes import Routes
from enforcement.sidecar.worker import Worker

BACKLOG = 4096

log = logging.getLogger(__name__)


class Service:
    """One worker behind one listener."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.port = 0
        self._stop = asyncio.Event()
        upstreams = tuple(Upstream(target, config) for target in config.upstreams)
        self._worker = Worker(config, upstreams, on_fenced=self.stop)
        self.desk = self._worker.desk
        self._front = Front(config, Routes(self.desk))
        self.desk.metrics.gauge(
            "connections", "Client connections", lambda: len(self._front.connections)
        )

    def stop(self) -> None:
        """Begin an orderly end."""
        self._stop.set()

    def restate(self) -> None:
        """Begin a new journal segment with all that still matters."""
        self._worker.restate()

    async def run(self) -> int:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: HttpClient(self._front),
                self.config.listen_host,
                self.config.listen_port,
                backlog=BACKLOG,
            )
        except OSError as error:
            log.critical("cannot listen: %s", error)
            self._worker.close()
            return 1
        self.port = server.sockets[0].getsockname()[1]
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(signal_number, self.stop)
        log.info(
            "listening on %s:%d, spool %s", self.config.listen_host, self.port, self._worker.spool
        )
        tasks = [
            loop.create_task(self._worker.sweep(self._front.sweep), name="sweep"),
            loop.create_task(self._worker.talk(), name="talk"),
        ]
        stopping = loop.create_task(self._stop.wait())
        _settle_memory()
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in tasks if task.done() and not task.cancelled()]
        for task in failed:
            log.critical("%s ended", task.get_name(), exc_info=task.exception())
        await self._shut_down(server, tasks)
        return 3 if self._worker.fenced else 1 if failed else 0

    async def _shut_down(self, server: asyncio.Server, tasks: list[asyncio.Task[None]]) -> None:
        """Take no new request, let running ones end, then send home what is left."""
        self.desk.closing = self._front.closing = True
        server.close()
        for connection in list(self._front.connections):
            if not connection.busy:
                connection.close()
        await self._worker.drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._worker.say_goodbye()
        for connection in list(self._front.connections):
            connection.close()
        self._worker.close()


def _settle_memory() -> None:
    """What was loaded stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def serve(config: Config) -> int:
    """Run a sidecar until it ends; the exit code."""
    logging.basicConfig(
        level=os.environ.get("COMPTROLLER_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return _run(config)
    except SpoolError as error:
        log.critical("%s", error)
        return 1


def _run(config: Config) -> int:
    async def main() -> int:
        return await Service(config).run()

    try:
        import uvloop  # noqa: PLC0415 -- absent on some platforms
    except ImportError:
        return asyncio.run(main())
    return int(uvloop.run(main()))
