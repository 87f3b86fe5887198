"""The embedded Valkey: Celery's broker on a Unix socket. No money is ever kept in it."""

import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

STOP = signal.SIGTERM
SOCKET = "valkey.sock"


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where the broker's program, data and socket are."""

    program: Path
    data: Path
    sockets: Path

    @property
    def socket(self) -> Path:
        return self.sockets / SOCKET

    @property
    def url(self) -> str:
        return f"redis+socket://{quote(str(self.socket), safe='/')}"

    def command(self, *, durable: bool = True) -> list[str]:
        """The server in the foreground; `durable` keeps queued tasks over a restart."""
        return [
            str(self.program),
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.data), "--save", "", "--appendonly", "yes" if durable else "no"),
            *("--maxmemory", "256mb", "--maxmemory-policy", "noeviction", "--daemonize", "no"),
        ]

    def is_ready(self) -> bool:
        """Whether the server answers a ping (it refuses while it still loads its data)."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(1)
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
