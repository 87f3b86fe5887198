"""Gathering: read a node's own counters, keep the sample, book what it produced by the hour.

The rule for a delta is pure and stands in `produced_between`; the rest reads and writes. Reading a
node happens outside every transaction, under an advisory lock of that node: two readings that
cross would look like a counter that fell. A task that runs twice, late or never costs nothing,
since counters only grow: the next reading has it all.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Q

from enforcement.collectors.base import CollectorError, Reading
from enforcement.collectors.fetch import fetch
from enforcement.collectors.registry import BY_ENGINE, read_page
from enforcement.enums import NodeState
from enforcement.models import NodeSample, NodeUsage, ServingNode
from enforcement.rules.windows import EPOCH

EVERY = timedelta(seconds=5)
SLACK = timedelta(seconds=3)  # visits of a tick are spread over 2 s, and a tick may come early
# Tokens of a longer silence cannot be told apart by the hour: its hours are marked incomplete.
LONGEST_GAP = timedelta(minutes=10)
# A node that hangs holds a worker for seconds: one that is silent for long gets every sixth tick.
PATIENCE = timedelta(minutes=1)
SELDOM = 6
SAMPLES_KEPT = timedelta(days=7)
HOUR = timedelta(hours=1)
_LOCK_SPACE = 0x6E6F6465  # "node": keeps our advisory locks apart from others'


class Tokens(NamedTuple):
    """What a node produced. Cached tokens are part of the prompt's."""

    prompt: int = 0
    cached: int = 0
    generation: int = 0


@dataclass(frozen=True)
class Scraped:
    """What became of one visit. `sample` is empty when nothing was stored.

    `busy`: somebody else reads the node, or has just read it.
    """

    sample: NodeSample | None = None
    error: str = ""
    busy: bool = False


# ------------------------------------------------------------------------------- which nodes


def due_nodes(*, now: datetime) -> list[UUID]:
    """Nodes whose counters are to be read at this tick, those that answered last time first."""
    nodes = (
        ServingNode.objects.filter(
            Q(last_scraped_at__isnull=True) | Q(last_scraped_at__lte=now - EVERY + SLACK),
        )
        .exclude(state=NodeState.GONE)
        .exclude(metrics_path="")
        .only("id", "last_error", "last_scraped_at", "created_at")
    )
    due = [node for node in nodes if not _is_silent(node, now) or _has_its_turn(node, now)]
    return [node.pk for node in sorted(due, key=lambda node: (bool(node.last_error), node.pk))]


def _is_silent(node: ServingNode, now: datetime) -> bool:
    heard_at = node.last_scraped_at or node.created_at
    return bool(node.last_error) and now - heard_at > PATIENCE


def _has_its_turn(node: ServingNode, now: datetime) -> bool:
    tick = (now - EPOCH) // EVERY
    return tick % SELDOM == node.pk.int % SELDOM


# ------------------------------------------------------------------------------- one visit


def scrape(*, node_id: UUID, now: datetime) -> Scraped:
    """Read one node and book it. A node that does not answer gets its `last_error`."""
    with _only_one(node_id) as alone:
        if not alone:
            return Scraped(busy=True)
        node = ServingNode.objects.filter(pk=node_id).exclude(state=NodeState.GONE).first()
        if node is None or not node.metrics_path:
            return Scraped()
        if node.last_scraped_at is not None and node.last_scraped_at > now - EVERY + SLACK:
            return Scraped(busy=True)
        try:
            answer = fetch(node.base_url, node.metrics_path)
            collector, reading = read_page(answer.body.decode("utf-8", "replace"), answer.headers)
        except CollectorError as error:
            words = str(error)[:500]
            ServingNode.objects.filter(pk=node_id).exclude(last_error=words).update(
                last_error=words
            )
            return Scraped(error=words)
        sample = store(node_id=node_id, engine=collector.engine, reading=reading, now=now)
    if sample is not None and not node.engine_version:
        _learn_version(node, collector.engine)
    return Scraped(sample=sample)


@contextlib.contextmanager
def _only_one(node_id: UUID) -> Iterator[bool]:
    """Hold a node for this database session; it is free again when the session ends, however."""
    key = int.from_bytes(node_id.bytes[-4:], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [_LOCK_SPACE, key])
        (alone,) = cursor.fetchone()
    try:
        yield alone
    finally:
        if alone:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [_LOCK_SPACE, key])


def _learn_version(node: ServingNode, engine: str) -> None:
    collector = BY_ENGINE[engine]
    with contextlib.suppress(CollectorError):  # its counters matter, its version is a courtesy
        version = collector.version(fetch(node.base_url, collector.version_path).body)
        if version:
            ServingNode.objects.filter(pk=node.pk).update(engine_version=version[:100])


# ------------------------------------------------------------------------------- booking


@transaction.atomic
def store(*, node_id: UUID, engine: str, reading: Reading, now: datetime) -> NodeSample | None:
    """Keep a reading and book what was produced since the last one; None for one that is late."""
    node = ServingNode.objects.select_for_update().get(pk=node_id)
    last = NodeSample.objects.filter(node=node).order_by("-at").first()
    if last is not None and now <= last.at:
        return None
    anew = last is not None and _began_anew(last, reading)
    sample = NodeSample.objects.create(
        node=node,
        at=now,
        epoch=1 if last is None else last.epoch + anew,
        prompt_tokens_total=reading.prompt_tokens,
        cached_tokens_total=reading.cached_tokens,
        generation_tokens_total=reading.generation_tokens,
        requests_running=reading.requests_running,
        requests_waiting=reading.requests_waiting,
        extra={
            **reading.extra,
            **({"life": reading.life} if reading.life else {}),
            **({"resolution": reading.resolution} if reading.resolution > 1 else {}),
        },
    )
    if last is not None:
        gap = sample.at - last.at
        _book(
            node,
            produced_between(last, sample),
            start=last.at,
            end=now,
            incomplete=anew or gap > LONGEST_GAP,
        )
    elif _is_younger(reading, node):
        _book(node, _totals(sample), start=node.created_at, end=now, incomplete=False)
    node.last_scraped_at = now
    node.last_error = ""
    node.engine = engine
    node.save(update_fields=["last_scraped_at", "last_error", "engine"])
    return sample


def _began_anew(last: NodeSample, reading: Reading) -> bool:
    """Whether the engine was restarted: it says so, or a total fell."""
    before = last.extra.get("life", "")
    if before and reading.life and before != reading.life:
        return True
    return (
        reading.prompt_tokens < last.prompt_tokens_total
        or reading.generation_tokens < last.generation_tokens_total
    )


def _is_younger(reading: Reading, node: ServingNode) -> bool:
    """Whether the engine began after the node was entered: then its first totals are all ours."""
    registered = Decimal(str(node.created_at.timestamp()))
    return reading.started_at is not None and reading.started_at > registered


def produced_between(last: NodeSample, sample: NodeSample) -> Tokens:
    """What was made from one sample to the next. After a restart the totals began at zero."""
    now = _totals(sample)
    if sample.epoch != last.epoch:
        return now
    before = _totals(last)
    return Tokens(
        now.prompt - before.prompt,
        max(0, now.cached - before.cached),
        now.generation - before.generation,
    )


def _totals(sample: NodeSample) -> Tokens:
    return Tokens(
        sample.prompt_tokens_total, sample.cached_tokens_total, sample.generation_tokens_total
    )


def _book(
    node: ServingNode, made: Tokens, *, start: datetime, end: datetime, incomplete: bool
) -> None:
    """Add to the hours it was made in. What a restart swallowed is marked, not guessed."""
    if made == Tokens() and not incomplete:
        return
    for hour, part in spread(made, start=start, end=end):
        usage, _ = NodeUsage.objects.get_or_create(node=node, hour=hour)
        NodeUsage.objects.filter(pk=usage.pk).update(
            prompt_tokens=F("prompt_tokens") + part.prompt,
            cached_tokens=F("cached_tokens") + part.cached,
            generation_tokens=F("generation_tokens") + part.generation,
            incomplete=usage.incomplete or incomplete,
        )


def spread(made: Tokens, *, start: datetime, end: datetime) -> list[tuple[datetime, Tokens]]:
    """Divide what was made in [start, end) over its hours by time; the parts sum exactly."""
    whole = end - start
    pieces: list[tuple[datetime, Tokens]] = []
    given = Tokens()
    hour = hour_of(start)
    while hour < end:
        passed = min(end, hour + HOUR) - start
        upto = Tokens(*(total * passed // whole for total in made))
        pieces.append((hour, Tokens(*(b - a for a, b in zip(given, upto, strict=True)))))
        given = upto
        hour += HOUR
    return pieces


def hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


# ------------------------------------------------------------------------------- tidying


def forget_samples(*, now: datetime) -> int:
    """Delete old samples, never a node's first or last: comparison begins with the one, the next
    delta with the other.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM enforcement_nodesample s WHERE s.at < %s"
            " AND EXISTS (SELECT 1 FROM enforcement_nodesample o"
            " WHERE o.node_id = s.node_id AND o.at > s.at)"
            " AND EXISTS (SELECT 1 FROM enforcement_nodesample o"
            " WHERE o.node_id = s.node_id AND o.at < s.at)",
            [now - SAMPLES_KEPT],
        )
        return int(cursor.rowcount)
