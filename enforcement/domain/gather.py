"""Gathering: which nodes are due, what was made between two samples, and for how long they stay.

`enforcement.domain.scraping` reads nodes, `enforcement.domain.storing` books what they said.
"""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Q

from enforcement.enums import NodeState
from enforcement.models import DeviceSample, NodeSample, ServingNode
from enforcement.rules.windows import EPOCH

EVERY = timedelta(seconds=settings.GATHER_EVERY_S)
SLACK = timedelta(seconds=3)  # visits of a tick are spread over 2 s, and a tick may come early
# Tokens of a longer silence cannot be told apart by the hour: its hours are marked incomplete.
LONGEST_GAP = timedelta(minutes=10)
# A node that hangs holds a worker for seconds: one that is silent for long gets every sixth tick.
PATIENCE = timedelta(minutes=1)
SELDOM = 6
SAMPLES_KEPT = timedelta(days=7)
HOUR = timedelta(hours=1)


class Tokens(NamedTuple):
    """What a node produced. Cached tokens are part of the prompt's."""

    prompt: int = 0
    cached: int = 0
    generation: int = 0


# ------------------------------------------------------------------------------- which nodes


def due_nodes(*, now: datetime) -> list[UUID]:
    """Nodes whose counters are to be read at this tick, those that answered last time first."""
    nodes = (
        ServingNode.objects.filter(
            Q(last_scraped_at__isnull=True)
            | Q(last_scraped_at__lte=now - EVERY + SLACK)
            | Q(last_scraped_at__gt=now + SLACK),  # read before the clock was set back
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


# ------------------------------------------------------------------------------- by the hour


def produced_between(last: NodeSample, sample: NodeSample) -> Tokens:
    """What was made from one sample to the next. After a restart the totals began at zero."""
    now = totals_of(sample)
    if sample.epoch != last.epoch:
        return now
    before = totals_of(last)
    prompt = now.prompt - before.prompt
    cached = min(prompt, max(0, now.cached - before.cached))
    return Tokens(prompt, cached, now.generation - before.generation)


def totals_of(sample: NodeSample) -> Tokens:
    return Tokens(
        sample.prompt_tokens_total, sample.cached_tokens_total, sample.generation_tokens_total
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
    delta with the other. Samples of devices have no such duty. Returns how many of nodes.
    """
    DeviceSample.objects.filter(at__lt=now - SAMPLES_KEPT).delete()
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
