"""The embedded PostgreSQL: one cluster in one directory, reached by a Unix socket only."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from controlplane.launcher.errors import LauncherError
from controlplane.launcher.privileges import Identity, child_options, give_to

USER = "comptroller"
DATABASE = "comptroller"
SOCKET = ".s.PGSQL.5432"
STOP = signal.SIGINT  # "fast": sessions are ended, data is flushed
CLEAN_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
LONGEST_SOCKET_PATH = 100

LEAST_CACHE_MB, MOST_CACHE_MB = 128, 1024


def cache_mb(memory_bytes: int) -> int:
    """How much of a machine's memory keeps pages: a sixteenth, within reason.

    Usage events come by the thousand, and each touches some pages of indexes: those that do not
    stay in memory are written again and again.
    """
    return min(max(memory_bytes // 16 >> 20, LEAST_CACHE_MB), MOST_CACHE_MB)


_MEMORY_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
EVERYDAY_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": f"{cache_mb(_MEMORY_BYTES)}MB",
    "max_wal_size": "2GB",
    "wal_level": "replica",
    "synchronous_commit": "on",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
THROWAWAY_SETTINGS = EVERYDAY_SETTINGS | {
    "shared_buffers": f"{LEAST_CACHE_MB}MB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
    "lock_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a cluster's programs, data and socket are, and who runs it."""

    programs: Path
    data: Path
    sockets: Path
    identity: Identity | None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.sockets), safe='/')}"

    def command(self, settings: dict[str, str]) -> list[str]:
        """The server in the foreground, with its socket as the only way in."""
        assigned = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [
            str(self.programs / "postgres"),
            *("-D", str(self.data), "-k", str(self.sockets)),
            *assigned,
        ]

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this pid takes connections.

        It says so in the last line of its pid file. The file of a killed server says it still.
        """
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def forget_killed_server(cluster: Cluster) -> None:
    """Remove the pid files of a server that was killed. Call it when no process of it is left.

    PostgreSQL would take a zombie that nobody reaps, or whoever has that pid now, for the old
    server and refuse to start. The launcher knows better: it holds the lock of the data directory,
    and has seen that no process works in the cluster's directory.
    """
    if Path("/proc/self/cwd").exists():
        (cluster.data / "postmaster.pid").unlink(missing_ok=True)
        (cluster.sockets / f"{SOCKET}.lock").unlink(missing_ok=True)


def create_cluster(cluster: Cluster) -> None:
    """Make the cluster and its database, unless they are there. A half-made one is no cluster."""
    if (cluster.data / "PG_VERSION").exists():
        return
    unfinished = cluster.data.with_name(cluster.data.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    give_to(unfinished, cluster.identity)
    _run(
        cluster,
        [
            str(cluster.programs / "initdb"),
            *("-D", str(unfinished), "-U", USER, "-A", "trust", "-E", "UTF8"),
            *_locale_options(cluster),
            *("--data-checksums", "--no-sync", "--no-instructions"),
        ],
    )
    single = [str(cluster.programs / "postgres"), "--single", "-D", str(unfinished), "postgres"]
    _run(cluster, single, standard_input=f"CREATE DATABASE {DATABASE}\n")
    os.sync()
    shutil.rmtree(cluster.data, ignore_errors=True)
    unfinished.rename(cluster.data)


def _locale_options(cluster: Cluster) -> tuple[str, ...]:
    """A sort order that no C library can change beneath the indexes; it came with version 17."""
    answer = _run(cluster, [str(cluster.programs / "initdb"), "--version"])
    major = int(answer.split()[2].split(".")[0])
    return ("--locale-provider=builtin", "--locale=C.UTF-8") if major >= 17 else ("--locale=C",)


def _run(cluster: Cluster, command: list[str], *, standard_input: str | None = None) -> str:
    """What a program of PostgreSQL says, run as the cluster's owner."""
    try:
        finished = subprocess.run(
            command,
            input=standard_input,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=CLEAN_ENVIRONMENT,
            **child_options(cluster.identity, farewell=signal.SIGKILL),
        )
    except OSError as error:
        raise LauncherError(f"{command[0]} cannot be run: {error}") from error
    if finished.returncode != 0:
        raise LauncherError(f"{Path(command[0]).name} failed: {finished.stderr.strip()[-800:]}")
    return str(finished.stdout)


def start(
    cluster: Cluster, settings: dict[str, str], *, log: Path, timeout_s: int = 30
) -> subprocess.Popen[bytes]:
    """Start the server and wait until it takes connections (for tests; `up` supervises)."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            cluster.command(settings),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd="/",
            env=CLEAN_ENVIRONMENT,
            **child_options(cluster.identity, farewell=signal.SIGQUIT),
        )
    deadline = time.monotonic() + timeout_s
    while not cluster.is_ready(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise LauncherError(f"PostgreSQL did not start: {log.read_text()[-800:]}")
        time.sleep(0.02)
    return process
