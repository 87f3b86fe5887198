"""Small HTTP servers that say exactly what a test wants, well or badly."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

Script = Callable[[socket.socket, bytes], None]


@contextlib.contextmanager
def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run `script` with each connection and the head of its request; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    workers: list[threading.Thread] = []

    def one(accepted: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            tls.wrap_socket(accepted, server_side=True) if tls else accepted as connection,
        ):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65_536)
                if not piece:
                    return
                head += piece
            script(connection, head)

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            worker = threading.Thread(target=one, args=(connection,), daemon=True)
            workers.append(worker)
            worker.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for worker in workers:
            worker.join(5)


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
    return head.encode() + body


def says(body: bytes, **how: str) -> Script:
    return lambda connection, _head: connection.sendall(answer(body, **how))


def hangs(connection: socket.socket, _head: bytes) -> None:
    """Say nothing until the other side has had enough."""
    connection.settimeout(10)
    connection.recv(1)


def drips(connection: socket.socket, _head: bytes) -> None:
    """One byte of a head at a time: each read alone would never time out."""
    for _ in range(200):
        connection.sendall(b"H")
        time.sleep(0.05)


def pours(connection: socket.socket, _head: bytes) -> None:
    """A body without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"a 1\n" * 65_536)


def stops_early(connection: socket.socket, _head: bytes) -> None:
    """The first half of a number."""
    connection.sendall(answer(b"llamacpp:tokens_predicted_total 123456\n")[:-5])


def closes(connection: socket.socket, _head: bytes) -> None:
    """Hang up."""
    connection.close()
