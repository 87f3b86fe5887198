"""The life of a sidecar: open the spool, listen, keep in step, drain, go.

`run` returns the exit code: 0 after an orderly end, 1 if the spool or the port cannot be had,
3 if another life of this spool has taken over.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from enforcement.sidecar.config import Config, parse_listen
from enforcement.sidecar.configfile import Source
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.front import Front, HttpClient
from enforcement.sidecar.handshakes import TlsListener, listen_with_tls
from enforcement.sidecar.journal import SpoolError
from enforcement.sidecar.reloading import Reloader
from enforcement.sidecar.routes import Routes
from enforcement.sidecar.worker import Worker

BACKLOG = 4096
SEND_BUFFER_BYTES = 256 * 1024  # else the kernel takes up to 4 MB of what a client does not read
FENCED = 3

log = logging.getLogger(__name__)
Beat = Callable[[int], None]  # told at each turn of the loop, with the time in ns
Listener = asyncio.Server | TlsListener


def _silent(now_ns: int) -> None:
    """Nobody watches."""


class Service:
    """One worker behind one listener."""

    def __init__(
        self, config: Config, *, source: Source | None = None, pulse: Beat = _silent
    ) -> None:
        self.config = config
        self._pulse = pulse
        self.port = 0
        self.admin_port = 0
        self._tls = config.tls.context() if config.tls is not None else None
        self._stop = asyncio.Event()
        upstreams = tuple(Upstream(target, config) for target in config.upstreams)
        self._worker = Worker(config, upstreams, on_fenced=self.stop)
        self.desk = self._worker.desk
        self._front = Front(config, Routes(self.desk))
        self.desk.metrics.gauge(
            "connections", "Client connections", lambda: len(self._front.connections)
        )
        self._listeners: list[Listener] = []
        self.desk.metrics.gauge(
            "tls_handshakes", "Connections inside a TLS handshake", self._handshakes
        )
        self._reloader = (
            Reloader(source, self.desk, taken=self._take_config) if source is not None else None
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
            await self._listen()
        except OSError as error:
            log.critical("cannot listen: %s", error)
            self._worker.close()
            return 1
        self._on_signal(signal.SIGTERM, self.stop)
        self._on_signal(signal.SIGINT, self.stop)
        self._on_signal(signal.SIGHUP, self.reload)
        log.info(
            "listening on %s:%d, spool %s", self.config.listen_host, self.port, self._worker.spool
        )
        tasks = [
            loop.create_task(self._worker.sweep(self._sweep), name="sweep"),
            loop.create_task(self._worker.talk(), name="talk"),
        ]
        if self._reloader is not None:
            tasks.append(loop.create_task(self._reloader.run(), name="reload"))
        stopping = loop.create_task(self._stop.wait())
        _settle_memory()
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in tasks if task.done() and not task.cancelled()]
        for task in failed:
            log.critical("%s ended", task.get_name(), exc_info=task.exception())
        await self._shut_down(tasks)
        return FENCED if self._worker.fenced else 1 if failed else 0

    def _sweep(self, now_ns: int) -> None:
        self._pulse(now_ns)
        self._front.sweep(now_ns)

    def _handshakes(self) -> int:
        return sum(
            listener.handshakes for listener in self._listeners if isinstance(listener, TlsListener)
        )

    async def _listen(self) -> None:
        """Open the port that workers share, and this worker's own one if there is to be any."""
        config = self.config
        self.port = await self._listen_at(config.listen_host, config.listen_port, shared=True)
        if config.admin_listen:
            host, port = parse_listen(config.admin_listen)
            port += config.worker if port else 0
            self.admin_port = await self._listen_at(host, port, shared=False)

    async def _listen_at(self, host: str, port: int, *, shared: bool) -> int:
        """Open one port; which one it became."""
        shared = shared and self.config.workers > 1
        listener: Listener
        if self._tls is not None:
            listener = await listen_with_tls(
                self._front, self._tls, host, port, backlog=BACKLOG, reuse_port=shared
            )
        else:
            listener = await asyncio.get_running_loop().create_server(
                lambda: HttpClient(self._front),
                host,
                port,
                backlog=BACKLOG,
                reuse_port=True if shared else None,
            )
        for place in listener.sockets:  # what connects there inherits it
            place.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def _on_signal(self, number: int, then: Callable[[], None]) -> None:
        with suppress(NotImplementedError, ValueError, RuntimeError):
            asyncio.get_running_loop().add_signal_handler(number, then)

    def reload(self) -> None:
        """Read the configuration again, soon."""
        if self._reloader is not None:
            self._reloader.ask()

    def _take_config(self, config: Config) -> None:
        """A reload found another configuration."""
        self.config = config
        self._front.configure(config)
        if config.tls is not None and self._tls is not None:
            self._tls.load_cert_chain(config.tls.cert_file, config.tls.key_file or None)
        self._worker.configure(config)

    async def _shut_down(self, tasks: list[asyncio.Task[None]]) -> None:
        """Take no new request, let running ones end, then send home what is left."""
        self.desk.closing = self._front.closing = True
        for listener in self._listeners:
            listener.close()
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


def configure_logs() -> None:
    logging.basicConfig(
        level=os.environ.get("COMPTROLLER_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def serve_here(config: Config, *, source: Source, pulse: Beat) -> int:
    """Run one worker in this process until it ends; the exit code. `pulse`: who watches it."""
    try:
        return _run(config, source, pulse)
    except SpoolError as error:
        log.critical("%s", error)
        return 1


def _run(config: Config, source: Source, pulse: Beat) -> int:
    async def main() -> int:
        return await Service(config, source=source, pulse=pulse).run()

    try:
        import uvloop  # noqa: PLC0415 -- absent on some platforms
    except ImportError:
        return asyncio.run(main())
    return int(uvloop.run(main()))
