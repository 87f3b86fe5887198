"""Visits of a batch of nodes: claimed together, read at once, stored in one transaction.

Reading happens outside every transaction, under an advisory lock of each node: two readings that
cross would look like a counter that fell. A batch that runs twice, late or never costs nothing,
since counters only grow: the next reading has it all.
"""

import contextlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection

from enforcement.collectors.base import Reading
from enforcement.collectors.fetch import WITHIN_S
from enforcement.collectors.visits import Target, Visit, visit_all
from enforcement.domain.gather import EVERY, SLACK
from enforcement.domain.readingcounts import Ended, count_readings
from enforcement.domain.storing import Found, note_errors, store_batch
from enforcement.domain.targets import same_address
from enforcement.enums import NodeState
from enforcement.models import NodeSample, ServingNode
from enforcement.rules.readings import Outcome

SPREAD_OF_ONE_S = 0.002  # the answers of a batch do not arrive all at once
_LOCK_SPACE = 0x6E6F6465  # "node": keeps our advisory locks apart from others'


@dataclass(frozen=True)
class Scraped:
    """What became of one visit. `sample` is empty when nothing was stored.

    `busy`: somebody else reads the node, or has just read it.
    """

    sample: NodeSample | None = None
    error: str = ""
    busy: bool = False


def scrape_batch(node_ids: Sequence[UUID], now: datetime) -> dict[UUID, Scraped]:
    """Read these nodes and book them; what does not answer gets its `last_error`.

    Takes two deadlines of a visit at most, however many nodes hang. Of nodes that are gone,
    unknown or without counters nothing is told.
    """
    with _alone(node_ids) as mine:
        scraped = {node_id: Scraped(busy=node_id not in mine) for node_id in node_ids}
        nodes = _readable(mine)
        fresh = [node for node in nodes if _is_fresh(node, now)]
        scraped |= {node.pk: Scraped(busy=True) for node in fresh}
        due = [node for node in nodes if not _is_fresh(node, now)]
        errors = same_address(due)
        twins = set(errors)
        visits = visit_all(
            [_target(node) for node in due if node.pk not in errors],
            spread_s=SPREAD_OF_ONE_S * len(due),
            within_s=WITHIN_S,
        )
        errors |= {visit.node_id: visit.error for visit in visits if visit.error}
        stored = store_batch(
            [_found(visit, visit.reading, now) for visit in visits if visit.reading is not None]
        )
        errors |= stored.refused
        note_errors(errors)
        count_readings(_ended(due, visits, twins | set(stored.refused), now))
    scraped |= {node_id: Scraped(error=words) for node_id, words in errors.items()}
    return scraped | {node_id: Scraped(sample=s) for node_id, s in stored.samples.items()}


@contextlib.contextmanager
def _alone(node_ids: Sequence[UUID]) -> Iterator[set[UUID]]:
    """Hold the nodes that are free for this database session, which frees them however it ends."""
    keys = {node_id: int.from_bytes(node_id.bytes[-4:], "big", signed=True) for node_id in node_ids}
    got = set(_each("pg_try_advisory_lock", set(keys.values())))
    try:
        yield {node_id for node_id, key in keys.items() if key in got}
    finally:
        _each("pg_advisory_unlock", got)


def _each(function: str, keys: set[int]) -> list[int]:
    """The keys for which this function of advisory locks said yes."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT key FROM unnest(%s::int[]) key WHERE {function}(%s, key)",  # noqa: S608 -- two literals above
            [sorted(keys), _LOCK_SPACE],
        )
        return [key for (key,) in cursor.fetchall()]


def _readable(node_ids: set[UUID]) -> list[ServingNode]:
    nodes = ServingNode.objects.filter(pk__in=node_ids).exclude(metrics_path="")
    return list(nodes.exclude(state=NodeState.GONE).order_by("pk"))


def _is_fresh(node: ServingNode, now: datetime) -> bool:
    """Read a moment ago. One read in the future was read before the clock was set back."""
    at = node.last_scraped_at
    return at is not None and now - EVERY + SLACK < at <= now + SLACK


def _target(node: ServingNode) -> Target:
    return Target(node.pk, node.base_url, node.metrics_path, not node.engine_version)


def _ended(
    nodes: Sequence[ServingNode], visits: Sequence[Visit], twins: AbstractSet[UUID], now: datetime
) -> Iterator[Ended]:
    """A node that failed before is read again when it is well: that is not late."""
    due_at = {node.pk: node.last_scraped_at for node in nodes if not node.last_error}
    for visit in visits:
        last_at = due_at.get(visit.node_id)
        if visit.outcome is not Outcome.READ or last_at is None:
            late = timedelta()
        else:
            late = now + timedelta(seconds=visit.after_s) - last_at - EVERY
        if visit.node_id not in twins:
            yield Ended(visit.outcome, late)
    for _ in twins:
        yield Ended(Outcome.COUNTED_ELSEWHERE)


def _found(visit: Visit, reading: Reading, now: datetime) -> Found:
    return Found(
        node_id=visit.node_id,
        engine=visit.engine,
        reading=reading,
        at=now + timedelta(seconds=visit.after_s),
        peer=visit.peer,
        version=visit.version,
    )
