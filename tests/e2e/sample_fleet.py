"""What sidecars and engines of the sample company would say about themselves, as rows."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from django.db.models import F

from budgets.models import Balance, Budget, Lease, Transfer
from budgets.queries import day_start, spend_by
from controlplane.identity.ids import new_id
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.domain.orders import order_agent
from enforcement.models import (
    NodeSample,
    NodeUsage,
    OrderAcknowledgement,
    ServingNode,
    Sidecar,
    Spool,
)
from enforcement.rules.policy import OrderKind
from tests.e2e.sample_company import RATES, Sample


def make_fleet(sample: Sample) -> None:
    """Two sidecars that speak, a third that fell silent; their nodes and leases."""
    spools = []
    for name, silent_s in (("gpu-a", 1), ("gpu-b", 2), ("edge-hamburg", 47)):
        enrolled = enrol_sidecar(
            organization_id=sample.organization.id,
            name=name,
            actor=sample.actor,
            now=sample.now - timedelta(days=2),
        )
        spools.append(_spool(sample, enrolled.sidecar, silent_s))
    for name, engine, version, models, produced_more in (
        ("gpu-a", "vllm", "0.11.2", ["gemma-3-270m", "qwen3-8b"], 0),
        ("gpu-b", "llama.cpp", "b7113", ["llama-3.3-70b"], 18_240),
    ):
        _node(sample, name, engine, version, models, produced_more)
    for index, name in enumerate(("Company month", "Operations month", "Platform day")):
        for spool, cents in ((spools[0], 2), (spools[1], 3)):
            _lease(sample, sample.budgets[name], spool, cents * 410_000_000, index)


def _spool(sample: Sample, sidecar: Sidecar, silent_s: int) -> Spool:
    seen = sample.now - timedelta(seconds=silent_s)
    Sidecar.objects.filter(pk=sidecar.pk).update(version="0.1.0", last_seen_at=seen)
    sample.organization.refresh_from_db()
    running = [
        ("ticket-triage", "triage-041", "qwen3-8b", 2, 212, 4_300),
        ("code-reviewer", "review-017", "llama-3.3-70b", 1, 655, 12_800),
        ("web-crawler", "crawl-208", "gemma-3-270m", 3, 97, 1_900),
    ]
    mine = running[:1] + running[2:] if sidecar.name == "gpu-a" else running[1:2]
    sessions = [
        {
            "agent": str(sample.agents[slug].id),
            "session": session,
            "model": model,
            "node": sidecar.name,
            "running": count,
            "output_tokens": tokens,
            "charge_nanos": tokens * RATES[model].output // 1_000_000,
            "age_ms": age_ms,
        }
        for slug, session, model, count, tokens, age_ms in mine
    ]
    return Spool.objects.create(
        id=new_id(),
        organization=sample.organization,
        sidecar=sidecar,
        book=f"{sidecar.name}/0",
        boot=uuid4().hex,
        incarnation=uuid4(),
        policy_revision=sample.organization.policy_revision - (3 if silent_s > 10 else 0),
        policy_valid_until=seen + timedelta(seconds=30),
        last_sync_at=seen,
        health={"open_streams": sum(s["running"] for s in sessions), "resident_bytes": 47_185_920},
        sessions=[] if silent_s > 10 else sessions,
    )


def _node(
    sample: Sample, name: str, engine: str, version: str, models: list[str], more: int
) -> None:
    node = ServingNode.objects.create(
        organization=sample.organization,
        name=name,
        sidecar=Sidecar.objects.get(organization=sample.organization, name=name),
        base_url=f"http://{name}:8000",
        engine=engine,
        engine_version=version,
        context_window=32_768,
        models=models,
        metrics_path="/metrics",
        created_at=sample.now - timedelta(days=2),
        last_scraped_at=sample.now - timedelta(seconds=4),
    )
    since = day_start(sample.organization, now=sample.now)
    spent = spend_by(
        organization_id=sample.organization.id, since=since, until=sample.now, by=("node",)
    )
    metered = {spend.key[0]: spend for spend in spent}.get(name)
    NodeUsage.objects.create(
        node=node,
        hour=sample.now.replace(minute=0, second=0, microsecond=0),
        prompt_tokens=metered.input_tokens if metered else 0,
        generation_tokens=(metered.output_tokens if metered else 0) + more,
    )
    for at in (sample.now - timedelta(days=2), sample.now - timedelta(seconds=4)):
        NodeSample.objects.create(
            node=node,
            at=at,
            prompt_tokens_total=1,
            generation_tokens_total=1,
            requests_running=0 if more else 3,
            requests_waiting=0,
        )


def _lease(sample: Sample, budget: Budget, spool: Spool, amount: int, index: int) -> None:
    balance = Balance.objects.filter(budget=budget).order_by("-window_start").first()
    assert balance is not None
    used = amount // (3 + index)
    lease = Lease.objects.create(
        organization=sample.organization,
        balance=balance,
        spool=spool.id,
        epoch=1,
        incarnation=uuid4(),
        group_key=new_id(),
        group_hash="0" * 64,
        amount=amount,
        used_amount=0,
        open_amount=used,
        granted_at=sample.now - timedelta(seconds=8 + index),
        expires_at=sample.now + timedelta(seconds=22 - index),
    )
    Balance.objects.filter(pk=balance.pk).update(held_amount=F("held_amount") + amount)
    Transfer.objects.create(
        organization=sample.organization,
        balance=balance,
        lease=lease,
        kind="grant",
        amount=amount,
        at=lease.granted_at,
    )


def kill_runaway(sample: Sample) -> None:
    at = sample.now - timedelta(minutes=2)
    order = order_agent(
        organization_id=sample.organization.id,
        agent_id=sample.agents["runaway"].id,
        kind=OrderKind.KILL,
        reason="Looping: the same invoice 140 times since noon.",
        actor=sample.actor,
        now=at,
    )
    for spool, streams, after_ms in zip(
        Spool.objects.filter(organization=sample.organization).order_by("sidecar__name")[1:],
        (4, 1),
        (61, 88),
        strict=True,
    ):
        OrderAcknowledgement.objects.create(
            order=order,
            spool=spool,
            streams_cut=streams,
            tokens_after=0,
            last_byte_ms=after_ms - 40,
            at=at + timedelta(milliseconds=after_ms),
        )
    sample.order = order


def keep_alive(sample: Sample) -> None:
    """Let the two sidecars that are online speak again, as they would every second."""
    now = datetime.now(tz=UTC)
    sample.organization.refresh_from_db()
    Sidecar.objects.filter(name__startswith="gpu").update(last_seen_at=now)
    Lease.objects.update(expires_at=now + timedelta(seconds=24))
    Spool.objects.filter(book__startswith="gpu").update(
        last_sync_at=now,
        policy_valid_until=now + timedelta(seconds=30),
        policy_revision=sample.organization.policy_revision,
    )
