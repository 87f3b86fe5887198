"""PostgreSQL as an operator runs it: started again when it died, whatever killed it.

Or failed over: a replica that lacks the last commits is promoted at the same address.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from controlplane.launcher import binaries, postgres, privileges
from controlplane.launcher.errors import LauncherError

SETTINGS = postgres.EVERYDAY_SETTINGS | {
    "max_wal_size": "128MB",  # room for a replica on the same small disk
    "restore_command": "/bin/false",  # there is no archive: a replica has what it was sent
}
COPY_S = 60  # for a replica, on a busy machine
MORE = 50  # looks, until there is a lease to be lost


class Database:
    """A durable cluster of our own in `home`; the stack is given its address."""

    def __init__(self, home: Path) -> None:
        identity = privileges.service_identity()
        home.chmod(0o755)
        place = home / "postgres"
        place.mkdir()
        privileges.give_to(place, identity)
        programs = privileges.readable_copy(
            binaries.postgres_programs(os.environ), cache=place / "programs", identity=identity
        )
        self.cluster = postgres.Cluster(
            programs=programs, data=place / "data", sockets=place, identity=identity
        )
        self._log = place / "log"
        self._replica = place / "replica"
        self._promoting = False
        self._wanted = True
        self._keeper: asyncio.Task[None] | None = None
        self.pid = 0

    async def start(self) -> None:
        await asyncio.to_thread(postgres.create_cluster, self.cluster)
        self._keeper = asyncio.create_task(self._keep())
        async with asyncio.timeout(30):
            while not self.pid or not self.cluster.is_ready(self.pid):
                await asyncio.sleep(0.1)

    async def _keep(self) -> None:
        command = self.cluster.command(SETTINGS)
        while self._wanted:
            with self._log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=postgres.CLEAN_ENVIRONMENT,
                    **privileges.child_options(self.cluster.identity, farewell=signal.SIGQUIT),
                )
            self.pid = process.pid
            await process.wait()
            if self._promoting:
                self._promote()
            await asyncio.sleep(0.3)

    async def fail_over(self, *, lost_s: float) -> int | None:
        """Copy the primary; `lost_s` after the next grant kill it, and the copy takes its place.

        How many leases were granted in between, of all that is lost. None: it could not be copied.
        """
        deadline = asyncio.get_running_loop().time() + COPY_S
        while not await asyncio.to_thread(self._replicate):  # it may be starting again
            if asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(0.3)
        kept = await asyncio.to_thread(self._leases)
        for _ in range(MORE):
            await asyncio.sleep(0.1)
            if await asyncio.to_thread(self._leases) > kept:
                break
        await asyncio.sleep(lost_s)
        lost = await asyncio.to_thread(self._leases) - kept
        self._promoting = True
        self.signal(signal.SIGKILL)
        return lost

    def _leases(self) -> int:
        with psycopg.connect(self.cluster.url, connect_timeout=5) as held:
            row = held.execute("SELECT count(*) FROM budgets_lease").fetchone()
        return int(row[0]) if row else 0

    def _replicate(self) -> bool:
        """A replica as of now: the files, and the journal that was written meanwhile."""
        shutil.rmtree(self._replica, ignore_errors=True)
        command = [
            str(self.cluster.programs / "pg_basebackup"),
            *("-h", str(self.cluster.sockets), "-U", postgres.USER, "-D", str(self._replica)),
            *("--wal-method", "stream", "--checkpoint", "fast", "--no-sync"),
        ]
        with self._log.open("ab") as log:
            copied = subprocess.run(
                command,
                check=False,
                stdout=log,
                stderr=log,
                cwd="/",
                env=postgres.CLEAN_ENVIRONMENT,
                **privileges.child_options(self.cluster.identity, farewell=signal.SIGKILL),
            )
        return copied.returncode == 0

    def _promote(self) -> None:
        """Put the replica at the primary's place; its recovery ends in a new timeline."""
        self._promoting = False
        lost = self._replica.with_name("lost")
        shutil.rmtree(lost, ignore_errors=True)
        self.cluster.data.rename(lost)
        (self._replica / "recovery.signal").touch()
        self._replica.rename(self.cluster.data)
        shutil.rmtree(lost, ignore_errors=True)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def stop(self) -> None:
        self._wanted = False
        self.signal(signal.SIGCONT)
        self.signal(postgres.STOP)
        if self._keeper is not None:
            _, late = await asyncio.wait([self._keeper], timeout=15)
            if late:
                self.signal(signal.SIGKILL)
                raise LauncherError("PostgreSQL did not stop")
