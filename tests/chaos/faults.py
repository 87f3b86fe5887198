"""What can go wrong with real processes, each with how it heals."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from controlplane.launcher import state
from tests.chaos.database import Database
from tests.chaos.disk import SmallDisk
from tests.chaos.fleet import Sidecar
from tests.chaos.link import Mode

PAUSE_S = (0.5, 3.0)
LOST_S = (0.3, 1.5)  # of commits, by a failover

Fault = Callable[["Scene"], Awaitable[None]]


@dataclass
class Scene:
    """Everything that a fault may break."""

    random: Random
    running: Any
    sidecars: list[Sidecar]
    database: Database
    database_disk: SmallDisk
    failovers: int = 0
    leases_lost: int = 0

    def pid(self, part: str) -> int | None:
        facts = state.read(self.running.installation.places) or {"parts": []}
        return next((p["pid"] for p in facts["parts"] if p["part"] == part), None)

    def send(self, part: str, number: signal.Signals) -> None:
        pid = self.pid(part)
        if pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it is being started again already

    async def pause(self) -> None:
        await asyncio.sleep(self.random.uniform(*PAUSE_S))

    def some(self) -> Sidecar:
        return self.random.choice(self.sidecars)


def kill(part: str) -> Fault:
    async def act(scene: Scene) -> None:
        scene.send(part, signal.SIGKILL)

    return act


def stop(part: str) -> Fault:
    async def act(scene: Scene) -> None:
        pid = scene.pid(part)
        scene.send(part, signal.SIGSTOP)
        await scene.pause()
        if pid == scene.pid(part):
            scene.send(part, signal.SIGCONT)

    return act


async def kill_database(scene: Scene) -> None:
    scene.database.signal(signal.SIGKILL)


async def stop_database(scene: Scene) -> None:
    scene.database.signal(signal.SIGSTOP)
    await scene.pause()
    scene.database.signal(signal.SIGCONT)


async def fail_over_database(scene: Scene) -> None:
    lost = await scene.database.fail_over(lost_s=scene.random.uniform(*LOST_S))
    if lost is not None:
        scene.failovers += 1
        scene.leases_lost += lost


async def kill_sidecar(scene: Scene) -> None:
    scene.some().signal(signal.SIGKILL)


async def stop_sidecar(scene: Scene) -> None:
    sidecar = scene.some()
    sidecar.signal(signal.SIGSTOP)
    await scene.pause()
    sidecar.signal(signal.SIGCONT)


def break_link(mode: Mode) -> Fault:
    async def act(scene: Scene) -> None:
        link = scene.some().link
        link.set(mode)
        await scene.pause()
        link.set(Mode.PASS)

    return act


async def fill_spool(scene: Scene) -> None:
    disk = scene.some().disk
    disk.fill()
    await scene.pause()
    disk.free()


async def fill_database(scene: Scene) -> None:
    scene.database_disk.fill()
    await scene.pause()
    scene.database_disk.free()


FAULTS: dict[str, Fault] = {
    "kill -9 web": kill("web"),
    "kill -9 worker": kill("worker"),
    "kill -9 PostgreSQL": kill_database,
    "failover of PostgreSQL": fail_over_database,
    "kill -9 Valkey": kill("broker"),
    "kill -9 a sidecar": kill_sidecar,
    "SIGSTOP web": stop("web"),
    "SIGSTOP worker": stop("worker"),
    "SIGSTOP PostgreSQL": stop_database,
    "SIGSTOP a sidecar": stop_sidecar,
    "link cut": break_link(Mode.CUT),
    "link stalled": break_link(Mode.STALL),
}
DISK_FAULTS: dict[str, Fault] = {  # only where a small disk can be mounted
    "disk of a spool full": fill_spool,
    "disk of the database full": fill_database,
}
