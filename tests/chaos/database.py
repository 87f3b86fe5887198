"""PostgreSQL as an operator runs it: started again when it died, whatever killed it."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from controlplane.launcher import binaries, postgres, privileges
from controlplane.launcher.errors import LauncherError


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
        command = self.cluster.command(postgres.EVERYDAY_SETTINGS)
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
            await asyncio.sleep(0.3)

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
