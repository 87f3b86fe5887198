"""HTTP to the control plane: a few keep-alive connections, strict answers, deadlines on all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec

from enforcement.sidecar.http1 import HttpError, ResponseHead, parse_response_head
from enforcement.sidecar.tls import SYSTEM, ClientTls

MAX_ANSWER = 64 * 1024 * 1024
MAX_IDLE = 4
MAX_IDLE_S = 4.0
PREFIX = "/sidecar/v1/"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ControlError(Exception):
    """The control plane did not answer, or not with what was asked for."""


class AnswerError(ControlError):
    """It answered with another status than 200; `detail` is its sentence."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body[:200].decode('utf-8', 'replace')}")
        self.status = status
        try:
            said = msgspec.json.decode(body)
        except msgspec.MsgspecError:
            said = None
        detail = said.get("detail") if isinstance(said, dict) else None
        self.detail = detail if isinstance(detail, str) else "The control plane refused"


class PayloadTooLargeError(ControlError):
    """413: send less at once."""


class ControlClient:
    """Speaks for one sidecar."""

    def __init__(
        self, url: str, token: str, *, tls: ClientTls = SYSTEM, within: float = 10.0
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._netloc = parts.netloc
        self._secure = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/") + PREFIX
        self._within = within
        self._idle: list[tuple[float, Connection]] = []
        self.configure(token, tls=tls)

    def configure(self, token: str, *, tls: ClientTls) -> None:
        """Say who we are from now on; what is under way goes on."""
        self._tls = tls.context() if self._secure else None
        self._server_name = tls.server_name or None if self._secure else None
        self._common = (
            f"host: {self._netloc}\r\nauthorization: Bearer {token}\r\n"
            "accept-encoding: identity\r\n"
        )
        self.close()

    async def post(self, path: str, body: bytes) -> bytes:
        """POST JSON. All our messages may be said twice: a stale connection is replaced.

        Raises:
            ControlError: no usable answer within the time.
        """
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\n{self._common}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode("ascii")
        try:
            async with asyncio.timeout(self._within):
                return await self._exchange(head + body)
        except TimeoutError as error:
            raise ControlError("no answer in time") from error
        except (OSError, EOFError, HttpError, asyncio.LimitOverrunError) as error:
            raise ControlError(str(error) or type(error).__name__) from error

    async def _exchange(self, request: bytes) -> bytes:
        reused = self._take_idle()
        if reused is not None:
            with suppress(OSError, EOFError):
                return await self._ask(reused, request)
        return await self._ask(await self._connect(), request)

    def _take_idle(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, connection = self._idle.pop()
            if now - since < MAX_IDLE_S and not connection[1].is_closing():
                return connection
            connection[1].close()
        return None

    async def _connect(self) -> Connection:
        return await asyncio.open_connection(
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname=self._server_name,
            limit=MAX_ANSWER,
        )

    async def _ask(self, connection: Connection, request: bytes) -> bytes:
        reader, writer = connection
        keep = False
        try:
            writer.write(request)
            await writer.drain()
            head = parse_response_head(await reader.readuntil(b"\r\n\r\n"))
            body = await _read_body(reader, head)
            keep = head.keep_alive and len(self._idle) < MAX_IDLE
        finally:
            if keep:
                self._idle.append((asyncio.get_running_loop().time(), connection))
            else:
                writer.close()
        if head.status == 413:
            raise PayloadTooLargeError("413")
        if head.status != 200:
            raise AnswerError(head.status, body)
        return body

    async def events(self, path: str, *, silence: float) -> AsyncIterator[str]:
        """Names of server-sent events, until the stream ends or is silent for too long.

        Raises:
            ControlError: always, in the end.
        """
        writer = None
        try:
            reader, writer = await self._connect_in_time()
            await self._subscribe(path, reader, writer)
            while True:
                async with asyncio.timeout(silence):
                    line = await reader.readline()
                if not line:
                    raise ControlError("the watch ended")
                if line.startswith(b"event:"):
                    yield line[6:].strip().decode("ascii", "replace")
        except (OSError, EOFError, HttpError, ValueError, TimeoutError) as error:
            raise ControlError(str(error) or type(error).__name__) from error
        finally:
            if writer is not None:
                writer.close()

    async def check(self, path: str) -> None:
        """Open a stream of events and leave: it changes nothing, but needs a good token.

        Raises:
            ControlError: it cannot be opened.
        """
        writer = None
        try:
            reader, writer = await self._connect_in_time()
            await self._subscribe(path, reader, writer)
        except (OSError, EOFError, HttpError, ValueError, TimeoutError) as error:
            raise ControlError(str(error) or type(error).__name__) from error
        finally:
            if writer is not None:
                writer.close()

    async def _connect_in_time(self) -> Connection:
        async with asyncio.timeout(self._within):
            return await self._connect()

    async def _subscribe(
        self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = (
            f"GET {self._prefix}{path} HTTP/1.1\r\n{self._common}accept: text/event-stream\r\n\r\n"
        )
        writer.write(request.encode("ascii"))
        async with asyncio.timeout(self._within):
            head = parse_response_head(await reader.readuntil(b"\r\n\r\n"))
        if head.status != 200:
            raise ControlError(f"watch answers {head.status}")

    def close(self) -> None:
        for _, connection in self._idle:
            connection[1].close()
        self._idle.clear()


async def _read_body(reader: asyncio.StreamReader, head: ResponseHead) -> bytes:
    if head.length is not None:
        if head.length > MAX_ANSWER:
            raise ControlError("the answer is too large")
        return await reader.readexactly(head.length)
    if not head.chunked:
        return await reader.read(MAX_ANSWER)
    parts: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0].strip() or b"x", 16)
        if not size:
            await reader.readuntil(b"\r\n")
            return b"".join(parts)
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
