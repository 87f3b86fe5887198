"""Booking readings: one transaction for a batch, a few statements however many nodes it has.

Time is the workers' own, so it can step back. Totals cannot: what was read later was made later,
whatever a clock says. A reading from before the last one by a little is another worker's clock and
waits for its next turn; by more, the clock was set back, and the reading goes just behind the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import connection, transaction

from enforcement.collectors.base import Reading
from enforcement.domain.gather import LONGEST_GAP, Tokens, produced_between, spread, totals_of
from enforcement.domain.targets import same_process
from enforcement.models import DeviceSample, NodeSample, ServingNode

SKEW = timedelta(seconds=10)  # clocks of two workers
_BEHIND = timedelta(microseconds=1)

Hours = dict[tuple[UUID, datetime], tuple[Tokens, bool]]


@dataclass(frozen=True)
class Found:
    """A reading that is to be booked, and who gave it."""

    node_id: UUID
    engine: str
    reading: Reading
    at: datetime
    peer: str = ""
    version: str = ""


@dataclass
class Stored:
    """Samples that were kept, and why others were refused, by node."""

    samples: dict[UUID, NodeSample] = field(default_factory=dict)
    refused: dict[UUID, str] = field(default_factory=dict)


@transaction.atomic
def store_batch(found: Sequence[Found]) -> Stored:
    """Keep the readings and book what was produced since the last ones; late ones are left out."""
    if not found:
        return Stored()
    ids = [one.node_id for one in found]
    locked = ServingNode.objects.select_for_update().filter(pk__in=ids).order_by("pk")
    nodes = {node.pk: node for node in locked}
    found = [one for one in found if one.node_id in nodes]
    for one in found:
        _learn(nodes[one.node_id], one)
    stored = Stored(refused=same_process(nodes.values()))
    lasts = _last_samples(list(nodes))
    hours: Hours = {}
    for one in found:
        if one.node_id not in stored.refused:
            _keep(nodes[one.node_id], one, lasts.get(one.node_id), stored, hours)
    NodeSample.objects.bulk_create(stored.samples.values())
    DeviceSample.objects.bulk_create(
        DeviceSample(node_id=one.node_id, at=stored.samples[one.node_id].at, **asdict(device))
        for one in found
        if one.node_id in stored.samples
        for device in one.reading.devices
    )
    _book(hours)
    _update(nodes, stored.samples)
    return stored


def note_errors(errors: Mapping[UUID, str]) -> None:
    """Mark nodes with what went wrong; one that is marked so already is not written again."""
    if not errors:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE enforcement_servingnode n SET last_error = e.words"
            " FROM unnest(%s::uuid[], %s::text[]) e (id, words)"
            " WHERE n.id = e.id AND n.last_error <> e.words",
            [list(errors), [words[:500] for words in errors.values()]],
        )


def _learn(node: ServingNode, one: Found) -> None:
    """Who answered. Another process or engine is asked for its version at its next turn."""
    known = (node.engine, node.process)
    node.engine = one.engine
    node.process = f"{one.peer} {one.reading.life}" if one.peer and one.reading.life else ""
    same = known == (node.engine, node.process) or not known[1]
    node.engine_version = one.version or (node.engine_version if same else "")
    node.warning = "; ".join(one.reading.notes)[:500]


def _last_samples(node_ids: list[UUID]) -> dict[UUID, NodeSample]:
    """The last sample of each node: one step down an index for each, whatever is kept of it."""
    rows = NodeSample.objects.raw(
        "SELECT s.* FROM unnest(%s::uuid[]) n (id) CROSS JOIN LATERAL"
        " (SELECT * FROM enforcement_nodesample WHERE node_id = n.id ORDER BY at DESC LIMIT 1) s",
        [node_ids],
    )
    return {row.node_id: row for row in rows}


# ------------------------------------------------------------------------------- one reading


def _keep(
    node: ServingNode, one: Found, last: NodeSample | None, stored: Stored, hours: Hours
) -> None:
    at = one.at
    steps_back = last is not None and at <= last.at
    if last is not None and steps_back:
        if last.at - at < SKEW:
            return
        node.warning = _joined(node.warning, f"the clock went back by {last.at - at}")
        at = last.at + _BEHIND
    anew = last is not None and _began_anew(last, one.reading)
    sample = _sample(node, one.reading, at, last, anew)
    stored.samples[node.pk] = sample
    if last is not None:
        incomplete = anew or steps_back or at - last.at > LONGEST_GAP
        hours |= _by_hour(sample, produced_between(last, sample), last.at, incomplete=incomplete)
    elif _is_younger(one.reading, node):
        hours |= _by_hour(sample, totals_of(sample), node.created_at, incomplete=False)
    node.last_scraped_at = one.at
    node.last_error = ""


def _sample(
    node: ServingNode, reading: Reading, at: datetime, last: NodeSample | None, anew: bool
) -> NodeSample:
    cached = reading.cached_tokens
    if cached is None:  # not told this time: nothing new is known of it
        cached = 0 if last is None or anew else last.cached_tokens_total
    return NodeSample(
        node=node,
        at=at,
        epoch=1 if last is None else last.epoch + anew,
        prompt_tokens_total=reading.prompt_tokens,
        cached_tokens_total=cached,
        generation_tokens_total=reading.generation_tokens,
        requests_running=reading.requests_running,
        requests_waiting=reading.requests_waiting,
        extra={
            **reading.extra,
            **({"life": reading.life} if reading.life else {}),
            **({"resolution": reading.resolution} if reading.resolution > 1 else {}),
        },
    )


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


def _joined(*words: str) -> str:
    return "; ".join(word for word in words if word)[:500]


# ------------------------------------------------------------------------------- writing


def _by_hour(sample: NodeSample, made: Tokens, start: datetime, *, incomplete: bool) -> Hours:
    """The hours it was made in. What a restart swallowed is marked, not guessed."""
    if made == Tokens() and not incomplete:
        return {}
    parts = spread(made, start=start, end=sample.at)
    return {(sample.node_id, hour): (part, incomplete) for hour, part in parts}


def _book(hours: Hours) -> None:
    columns = zip(
        *((*key, *part, mark) for key, (part, mark) in sorted(hours.items())), strict=True
    )
    values = [list(column) for column in columns]
    if not values:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO enforcement_nodeusage AS u"
            " (node_id, hour, prompt_tokens, cached_tokens, generation_tokens, incomplete)"
            " SELECT * FROM unnest(%s::uuid[], %s::timestamptz[], %s::bigint[], %s::bigint[],"
            " %s::bigint[], %s::boolean[])"
            " ON CONFLICT (node_id, hour) DO UPDATE SET"
            " prompt_tokens = u.prompt_tokens + EXCLUDED.prompt_tokens,"
            " cached_tokens = u.cached_tokens + EXCLUDED.cached_tokens,"
            " generation_tokens = u.generation_tokens + EXCLUDED.generation_tokens,"
            " incomplete = u.incomplete OR EXCLUDED.incomplete",
            values,
        )


def _update(nodes: Mapping[UUID, ServingNode], samples: Mapping[UUID, NodeSample]) -> None:
    """What the nodes have learned, of those that were read."""
    read = [nodes[node_id] for node_id in samples]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE enforcement_servingnode n SET last_scraped_at = r.at, last_error = '',"
            " warning = r.warning, engine = r.engine, engine_version = r.version,"
            " process = r.process FROM unnest(%s::uuid[], %s::timestamptz[], %s::text[],"
            " %s::text[], %s::text[], %s::text[]) r (id, at, warning, engine, version, process)"
            " WHERE n.id = r.id",
            [
                [node.pk for node in read],
                [node.last_scraped_at for node in read],
                [node.warning for node in read],
                [node.engine for node in read],
                [node.engine_version[:100] for node in read],
                [node.process[:200] for node in read],
            ],
        )
