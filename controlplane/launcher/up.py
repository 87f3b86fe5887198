"""`comptroller up`: start everything in order, tell how to use it, stop everything in reverse.

    database, broker → bootstrap (migrations, example organization) → web, worker, collector,
    sidecar

A later start whose migrations have not changed starts the web and the workers at once, while the
bootstrap makes the sign-in link beside them.
"""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

from controlplane.launcher import binaries, postgres, state
from controlplane.launcher.errors import LauncherError
from controlplane.launcher.parts import CHECKOUT, Installation, Wishes
from controlplane.launcher.places import Places
from controlplane.launcher.privileges import child_options, service_identity
from controlplane.launcher.seal import seal_of_migrations
from controlplane.launcher.supervisor import Part, Supervisor, log_tail

BOOTSTRAP_TIMEOUT_S = 120


class Narrator(Protocol):
    """Where progress goes: one line per part."""

    def step(self, name: str, words: str, seconds: float | None = None) -> None: ...


@dataclass(kw_only=True)
class Running:
    """What `up` has made: the facts for the person, the demo and the tests."""

    installation: Installation
    facts: dict[str, Any] = field(default_factory=dict)
    ready_after_s: float = 0.0


class Launch:
    """One run of `up`, from the lock to the last child's end."""

    def __init__(self, wishes: Wishes, narrator: Narrator) -> None:
        self.began = time.monotonic()
        self.narrator = narrator
        self.places = Places(wishes.data, service_identity())
        self.wishes = wishes
        self.supervisor = Supervisor(self._on_change)
        self.running: Running | None = None

    async def start(self) -> Running:
        """Everything up and ready, or an error; `stop` ends what has been started.

        The caller has prepared the places and holds the lock.
        """
        for name in state.end_strays(self.places):
            self.narrator.step(name, "of a killed launcher ended")
        installation = Installation(self.wishes, self.places)
        self.running = Running(installation=installation)
        await self._start_stores(installation)
        seal = seal_of_migrations(CHECKOUT)
        if installation.cluster and self._is_migrated(seal):
            await self._start_beside_bootstrap(self.running)
        else:
            self.running.facts = await self._bootstrap(installation, migrate=True)
            self.places.migrated.write_text(seal)
            await all_of(
                *self._web_and_workers(installation),
                self._start_sidecar(installation),
            )
        self.running.ready_after_s = time.monotonic() - self.began
        self._write_state()
        return self.running

    async def _start_stores(self, installation: Installation) -> None:
        if installation.cluster is None:
            self.narrator.step("database", "DATABASE_URL is used as it is")
        elif part := installation.database():
            if not (installation.cluster.data / "PG_VERSION").exists():
                began = time.monotonic()
                self.places.migrated.unlink(missing_ok=True)
                postgres.create_cluster(installation.cluster)
                self.narrator.step("database", "cluster created", time.monotonic() - began)
            postgres.forget_killed_server(installation.cluster)
            await self.supervisor.start(part)
        if part := installation.message_broker():
            await self.supervisor.start(part)
        else:
            self.narrator.step("broker", "BROKER_URL is used as it is")

    def _is_migrated(self, seal: str) -> bool:
        have = self.places.migrated
        return have.exists() and have.read_text() == seal

    async def _start_beside_bootstrap(self, running: Running) -> None:
        installation = running.installation

        async def bootstrap() -> None:
            running.facts = await self._bootstrap(installation, migrate=False)
            await self._start_sidecar(installation)

        await all_of(bootstrap(), *self._web_and_workers(installation))

    def _web_and_workers(self, installation: Installation) -> list[Coroutine[Any, Any, None]]:
        parts = (installation.web(), installation.worker(), installation.collector())
        return [self.supervisor.start(part) for part in parts]

    async def _start_sidecar(self, installation: Installation) -> None:
        """After the demo's model, if there is one, so that the sidecar finds it at once."""
        if model := installation.model():
            await self.supervisor.start(model)
        token = self.places.read_secret("sidecar-token")
        if token is None:
            raise LauncherError("the bootstrap made no sidecar token")
        await self.supervisor.start(installation.sidecar(token=token))

    async def _bootstrap(self, installation: Installation, *, migrate: bool) -> dict[str, Any]:
        """Migrations and the example organization, in one Django process that ends."""
        began = time.monotonic()
        wanted = [name for name in ("agent-key", "sidecar-token") if not self._has(name)]
        log = self.places.log("bootstrap")
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "controlplane.bootstrap", *self._flags(wanted, migrate)),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=sink,
                cwd="/",
                env={**installation.environment(), state.PART_VARIABLE: "bootstrap"},
                **child_options(installation.application_identity, farewell=signal.SIGKILL),
            )
        answer = await self._answer_of(process)
        for name, value in answer.pop("secrets").items():
            self.places.write_secret(name, value)
        words = "migrated, example organization ready" if migrate else "sign-in link made"
        self.narrator.step("bootstrap", words, time.monotonic() - began)
        return answer

    def _has(self, secret: str) -> bool:
        return self.places.read_secret(secret) is not None

    @staticmethod
    def _flags(wanted: list[str], migrate: bool) -> list[str]:
        needs = [part for name in wanted for part in ("--need", name)]
        return [*needs, *(["--migrate"] if migrate else [])]

    async def _answer_of(self, process: Process) -> dict[str, Any]:
        try:
            async with asyncio.timeout(BOOTSTRAP_TIMEOUT_S):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            tail = log_tail(self.places.log("bootstrap"))
            raise LauncherError(f"the bootstrap failed:\n{tail}")
        answer: dict[str, Any] = json.loads(printed)
        return answer

    def _on_change(self, part: Part, what: str) -> None:
        if what == "ready":
            words = f"{part.title} ready" + (f" at {part.address}" if part.address else "")
            self.narrator.step(part.name, words, part.ready_after_s)
        elif what != "starting":
            self.narrator.step(part.name, f"{part.title} {what}")
        self._write_state()

    def _write_state(self) -> None:
        if self.running is None:
            return
        installation = self.running.installation
        environment = installation.environment()
        content = {
            "pid": os.getpid(),
            "version": version("comptroller"),
            "data_dir": str(self.places.data),
            "web_url": installation.web_url,
            "sidecar_url": installation.sidecar_url,
            "database_url": environment["DATABASE_URL"],
            "broker_url": environment["BROKER_URL"],
            "ready": self.running.ready_after_s > 0,
            "parts": [part.facts() for part in self.supervisor.parts],
        }
        state.write(self.places, content)

    async def stop(self) -> None:
        began = time.monotonic()
        await self.supervisor.stop_all()
        self.narrator.step("everything", "stopped", time.monotonic() - began)


async def all_of(*starts: Coroutine[Any, Any, None]) -> None:
    """Run them side by side. The first failure ends the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for start in starts:
                tasks.create_task(start)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def check_programs(wishes: Wishes) -> None:
    """Raise LauncherError for a missing server program before anything is made."""
    if not wishes.environ.get("DATABASE_URL"):
        binaries.postgres_programs(wishes.environ)
    if not wishes.environ.get("BROKER_URL"):
        binaries.valkey_program(wishes.environ)


async def _tell_story(
    story: Coroutine[Any, Any, str | None], stopping: asyncio.Task[str], supervisor: Supervisor
) -> None:
    """Run it beside the wait for a stop; whatever ends first counts."""
    telling = asyncio.create_task(story)
    await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not telling.done():
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    elif (reason := telling.result()) is not None:
        supervisor.request_stop(reason)


async def run(
    wishes: Wishes,
    narrator: Narrator,
    on_ready: Callable[[Running], None],
    story: Callable[[Running], Coroutine[Any, Any, str | None]] | None = None,
) -> str:
    """Until somebody asks to stop, or the database ends. The answer is the reason.

    A `story` runs while all is up; what it answers, if anything, is a reason to stop.
    """
    check_programs(wishes)
    launch = Launch(wishes, narrator)
    launch.places.prepare()
    with state.held_lock(launch.places):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, launch.supervisor.request_stop, number.name)
        try:
            starting = asyncio.create_task(launch.start())
            stopping = asyncio.create_task(launch.supervisor.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return await stopping
            running = starting.result()
            on_ready(running)
            if story is not None:
                await _tell_story(story(running), stopping, launch.supervisor)
            return await stopping
        finally:
            await launch.stop()
