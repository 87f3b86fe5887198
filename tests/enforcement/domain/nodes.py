"""Nodes and readings of them, as gathering sees them."""

from datetime import datetime
from typing import Any

from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_usage
from controlplane.identity.ids import new_id
from enforcement.collectors.base import Reading
from enforcement.domain.gather import Tokens
from enforcement.domain.storing import Found, store_batch
from enforcement.models import NodeSample, NodeUsage, ServingNode
from tests.budgets.world import NOW, World, call, ms


def make_node(world: World, name: str = "gpu-a", **changes: Any) -> ServingNode:
    values: dict[str, Any] = {
        "base_url": "http://127.0.0.1:9",
        "metrics_path": "/metrics",
        "created_at": NOW,
    }
    return ServingNode.objects.create(
        organization=world.organization, name=name, **values | changes
    )


def read(node: ServingNode, generation: int, *, at: datetime, **changes: Any) -> NodeSample | None:
    """Store a reading; its prompt is twice what was generated, half of it cached."""
    values: dict[str, Any] = {
        "prompt_tokens": 2 * generation,
        "cached_tokens": generation,
        "generation_tokens": generation,
    }
    found = Found(node.pk, "vllm", Reading(**values | changes), at)
    return store_batch([found]).samples.get(node.pk)


def meter(world: World, at: datetime, node: str = "gpu-a", **changes: Any) -> None:
    """Book a call of 100 + 20 tokens that began at this time, and fold it."""
    event = call(world, id=str(new_id()), node=node, started_at_ms=ms(at), **changes)
    book_usage(organization_id=world.id, sidecar_id=new_id(), events=[event], now=at)
    fold_usage(now=at)


def hours(node: ServingNode) -> list[tuple[int, Tokens, bool]]:
    """(hour of the day, tokens, incomplete) of all that was booked."""
    return [
        (
            row.hour.hour,
            Tokens(row.prompt_tokens, row.cached_tokens, row.generation_tokens),
            row.incomplete,
        )
        for row in NodeUsage.objects.filter(node=node).order_by("hour")
    ]
