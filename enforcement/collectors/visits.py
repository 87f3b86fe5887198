"""Many nodes at once: each visit has a deadline of its own, and none holds another up."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from enforcement.collectors import loop
from enforcement.collectors.base import CollectorError, Reading, Source
from enforcement.collectors.fetch import fetch
from enforcement.collectors.registry import read_page
from enforcement.rules.readings import Outcome

AT_ONCE = 256  # open connections of a process; its usual limit of files is 1,024


@dataclass(frozen=True)
class Target:
    """A page to read. `wants_version`: the engine's version is not known yet."""

    node_id: UUID
    base_url: str
    path: str
    wants_version: bool = False


@dataclass(frozen=True)
class Visit:
    """What came of one. `after_s` counts from the batch's begin to the answer.

    Either `reading` is there, or `error` and `outcome` say why not.
    """

    node_id: UUID
    after_s: float
    engine: str = ""
    reading: Reading | None = None
    peer: str = ""
    version: str = ""
    error: str = ""
    outcome: Outcome = Outcome.READ


def visit_all(targets: Sequence[Target], *, spread_s: float, within_s: float) -> list[Visit]:
    """Read all of them. Their begins are spread over `spread_s`, each node's always alike."""
    return loop.run(_visit_all(targets, spread_s, within_s))


async def _visit_all(targets: Sequence[Target], spread_s: float, within_s: float) -> list[Visit]:
    began = time.monotonic()
    free = asyncio.Semaphore(AT_ONCE)

    async def one(target: Target) -> Visit:
        await asyncio.sleep(spread_s * (target.node_id.int % 1_000) / 1_000)
        async with free:
            return await _visit(target, began, within_s)

    return await asyncio.gather(*(one(target) for target in targets))


async def _visit(target: Target, began: float, within_s: float) -> Visit:
    try:
        answer = await fetch(target.base_url, target.path, within=within_s)
        after_s = time.monotonic() - began
        collector, reading = read_page(answer.body.decode("utf-8", "replace"), answer.headers)
    except CollectorError as error:
        after_s = time.monotonic() - began
        return Visit(target.node_id, after_s, error=str(error)[:500], outcome=error.why)
    wants_version = target.wants_version and collector.version_path
    version = await _version(target, collector, within_s) if wants_version else ""
    return Visit(
        target.node_id,
        after_s,
        engine=collector.engine,
        reading=reading,
        peer=answer.peer,
        version=version,
    )


async def _version(target: Target, collector: Source, within_s: float) -> str:
    try:  # its counters matter, its version is a courtesy
        answer = await fetch(target.base_url, collector.version_path, within=within_s)
    except CollectorError:
        return ""
    return collector.version(answer.body)[:100]
