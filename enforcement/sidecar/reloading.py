"""A changed configuration, taken up while calls run.

1. It is read whole, checked whole, and then taken whole; one that cannot be used changes nothing,
   and `/healthz`, the log and a metric say so.
2. Nodes that did not change keep their connections, their health and their calls. A changed one is
   another node: it is asked what it serves before it takes the place of the old one, whose calls
   end where they began.
3. What only a start can change (port, spool, workers) stays, with a warning.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from enforcement.sidecar.config import Config, ConfigError
from enforcement.sidecar.configfile import Source
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.tls import Seal, TlsError

POLL_S = 1.0
_FIXED = (
    *("listen_host", "listen_port", "admin_listen", "spool_dir", "workers", "worker", "book"),
    *("control_url", "spool_quota_bytes", "spool_segment_bytes", "heartbeat", "otlp_endpoint"),
)
_OF_POOLS = (
    *("context_window", "upstream_connect_timeout", "upstream_head_timeout"),
    *("upstream_idle_timeout", "upstream_keepalive", "stops", "metered_margin_tokens"),
)

log = logging.getLogger(__name__)


class Reloader:
    """Watches the files of a configuration."""

    def __init__(self, source: Source, desk: Desk, *, taken: Callable[[Config], None]) -> None:
        self._source = source
        self._desk = desk
        self._taken = taken  # tell all who keep something of it
        self._asked = asyncio.Event()
        self._seen: Seal = source.seal()

    def ask(self) -> None:
        """Read it now, changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Look at the files once a second, and whenever asked."""
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._asked.wait()
            except TimeoutError:
                seen = await asyncio.to_thread(self._source.seal)
                if seen == self._seen:
                    continue
            self._asked.clear()
            await self.reload()

    async def reload(self) -> None:
        """Read, check, take."""
        self._seen = await asyncio.to_thread(self._source.seal)
        try:
            found = await asyncio.to_thread(self._source.load)
        except ConfigError as error:
            self._refuse(error)
            return
        seen = await asyncio.to_thread(self._source.seal)
        if [seal[0] for seal in seen] != [seal[0] for seal in self._seen]:
            self._seen = seen  # it names other files now
        try:
            await self._take(_with_fixed(found, self._desk.config))
        except (TlsError, OSError) as error:  # a file changed again since it was checked
            self._refuse(error)
            self._seen = ()  # look once more, soon

    def _refuse(self, error: Exception) -> None:
        log.error("the configuration stays as it was: %s", error)
        self._desk.config_error = str(error)
        self._desk.metrics.reloads["refused"] += 1

    async def _take(self, config: Config) -> None:
        desk = self._desk
        await self._take_nodes(config)
        desk.config = config
        if desk.view is not None:
            desk.view.forget_terms()  # sizes are bounded by the configuration
        self._taken(config)
        desk.config_error = ""
        desk.metrics.reloads["taken"] += 1
        log.info("the configuration was taken up: %d nodes", len(config.upstreams))

    async def _take_nodes(self, config: Config) -> None:
        router = self._desk.router
        old = self._desk.config
        same_pools = all(getattr(config, name) == getattr(old, name) for name in _OF_POOLS)
        known = {node.target: node for node in router.upstreams} if same_pools else {}
        nodes = tuple(known.get(t) or Upstream(t, config) for t in config.upstreams)
        fresh = [node for node in nodes if node not in router.upstreams]
        await asyncio.gather(*(node.probe() for node in fresh))
        router.replace(nodes, config.routes)


def _with_fixed(found: Config, old: Config) -> Config:
    """The new configuration, with what cannot change as it was."""
    kept = {name: getattr(old, name) for name in _FIXED}
    moved = [
        name
        for name in _FIXED
        if name not in ("worker", "spool_dir", "listen_port")
        and getattr(found, name) != getattr(old, name)
    ]
    if (found.tls is None) != (old.tls is None) or _callers_of(found) != _callers_of(old):
        moved.append("tls")
        kept["tls"] = old.tls
    if moved:
        log.warning("only a restart changes %s", ", ".join(moved))
    return replace(found, **kept)


def _callers_of(config: Config) -> tuple[str, Seal]:
    """Whose callers are let in: an authority that was trusted cannot be forgotten while we run."""
    path = config.tls.client_ca_file if config.tls is not None else ""
    files = config.tls.files if config.tls is not None else ()
    return path, tuple(seal for seal in files if seal[0] == path)
