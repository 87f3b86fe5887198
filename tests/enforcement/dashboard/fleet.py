"""Sidecars, books and nodes as they would describe themselves."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.utils import timezone

from controlplane.identity.domain import issue_api_token
from controlplane.identity.enums import TokenKind
from controlplane.identity.ids import new_id
from enforcement.models import ServingNode, Sidecar, Spool
from tests.budgets.world import World
from tests.visitors import SYSTEM


def make_sidecar(world: World, name: str, **changes: Any) -> Sidecar:
    now = timezone.now()
    token = issue_api_token(
        organization_id=world.id, name=name, kind=TokenKind.SIDECAR, actor=SYSTEM, now=now
    ).token
    values: dict[str, Any] = {"version": "0.1.0", "created_at": now, "last_seen_at": now}
    return Sidecar.objects.create(
        organization=world.organization, name=name, token=token, **values | changes
    )


def make_spool(sidecar: Sidecar, **changes: Any) -> Spool:
    now = timezone.now()
    values: dict[str, Any] = {
        "id": new_id(),
        "organization_id": sidecar.organization_id,
        "sidecar": sidecar,
        "book": f"{sidecar.name}/0",
        "boot": "b",
        "incarnation": uuid4(),
        "policy_valid_until": now + timedelta(seconds=30),
        "last_sync_at": now,
    }
    return Spool.objects.create(**values | changes)


def session(world: World, **changes: Any) -> dict[str, Any]:
    """A session with a request in flight, as a Sync tells it."""
    return {
        "agent": str(world.agent.id),
        "session": "s-1",
        "model": "gemma",
        "node": "gpu",
        "running": 1,
        "output_tokens": 40,
        "charge_nanos": 2_000,
        "age_ms": 1_500,
        **changes,
    }


def make_node(world: World, name: str, **changes: Any) -> ServingNode:
    now = timezone.now()
    values: dict[str, Any] = {
        "base_url": f"http://{name}",
        "engine": "vllm",
        "created_at": now,
        "last_scraped_at": now,
        "models": ["gemma"],
        "metrics_path": "/metrics",
    }
    return ServingNode.objects.create(
        organization=world.organization, name=name, **values | changes
    )
