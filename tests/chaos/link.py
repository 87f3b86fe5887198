"""A TCP link that can be cut or stalled: the network between a sidecar and the control plane."""

import asyncio
import contextlib
from enum import StrEnum

CHUNK = 64 * 1024


class Mode(StrEnum):
    PASS = "pass"
    CUT = "cut"  # refuse, and break what is open
    STALL = "stall"  # accept and say nothing: a peer that hangs


class Link:
    """Listens on a free port of this machine and passes bytes to `port`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._mode = Mode.PASS
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def set(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.STALL:
            self._flows.clear()
        else:
            self._flows.set()
        if mode is Mode.CUT:
            for writer in self._open:
                writer.transport.abort()

    async def stop(self) -> None:
        self.set(Mode.CUT)
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._mode is Mode.CUT:
                writer.transport.abort()
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(back)
            try:
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
            finally:
                self._open.discard(back)
                back.close()
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
