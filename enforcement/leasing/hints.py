"""Hints: one LISTEN connection for each process, any number of watchers.

A hint says that there is something to Sync, nothing more. A lost one delays, it loses nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

import msgspec
from psycopg import AsyncConnection, OperationalError

from controlplane.identity.domain import HINT_CHANNEL
from enforcement.leasing import metrics

RECALL_CHANNEL = "comptroller_recall"
RECONNECT_S = 0.5
RECALL_MATTERS_S = 2.0
MAX_RECALLED = 1_000

Recalls = list[tuple[str, str, str]]  # spool, budget, value

log = logging.getLogger(__name__)


class Watcher:
    """One open watch stream."""

    def __init__(self, organization: str, spool: str) -> None:
        self.organization = organization
        self.spool = spool
        self.event = asyncio.Event()


class Hints:
    """Delivers notifications of the database to watchers. `on_change` gets an organization's id."""

    def __init__(self, conninfo: str, *, on_change: Callable[[str], None]) -> None:
        self._conninfo = conninfo
        self._on_change = on_change
        self._watchers: set[Watcher] = set()
        self._recalls: dict[str, dict[tuple[str, str], float]] = {}

    def watch(self, organization: str, spool: str) -> Watcher:
        watcher = Watcher(organization, spool)
        self._watchers.add(watcher)
        metrics.WATCHERS.set(len(self._watchers))
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        metrics.WATCHERS.set(len(self._watchers))

    def take_recalls(self, spool: str) -> set[tuple[str, str]]:
        """The balances that a spool is to send home, said once, and only while it matters."""
        since = monotonic() - RECALL_MATTERS_S
        return {key for key, at in self._recalls.pop(spool, {}).items() if at > since}

    async def run(self) -> None:
        """Listen for as long as the process lives; after a gap everybody is hinted."""
        while True:
            try:
                async with await AsyncConnection.connect(
                    self._conninfo, autocommit=True
                ) as connection:
                    await connection.execute(f"LISTEN {HINT_CHANNEL}")
                    await connection.execute(f"LISTEN {RECALL_CHANNEL}")
                    self._hint_all()
                    async for notice in connection.notifies():
                        self._take(notice.channel, notice.payload)
            except OperationalError as error:
                log.warning("hints are interrupted: %s", error)
            await asyncio.sleep(RECONNECT_S)

    def _take(self, channel: str, payload: str) -> None:
        if channel == RECALL_CHANNEL:
            self._forget_old_recalls()
            for spool, budget, value in msgspec.json.decode(payload, type=Recalls):
                self._recalls.setdefault(spool, {})[budget, value] = monotonic()
                self._hint(lambda w, spool=spool: w.spool == spool)  # type: ignore[misc]
            return
        self._on_change(payload)
        self._hint(lambda w: w.organization == payload)

    def _forget_old_recalls(self) -> None:
        """Books that speak to another process, or to none, must not fill this one's memory."""
        if len(self._recalls) > MAX_RECALLED:
            since = monotonic() - RECALL_MATTERS_S
            self._recalls = {
                spool: recalls
                for spool, recalls in self._recalls.items()
                if max(recalls.values()) > since
            }

    def _hint_all(self) -> None:
        for organization in {watcher.organization for watcher in self._watchers}:
            self._on_change(organization)
        self._hint(lambda _: True)

    def _hint(self, concerns: Callable[[Watcher], bool]) -> None:
        for watcher in self._watchers:
            if concerns(watcher):
                watcher.event.set()
