"""A small company with a day behind it, for pictures and for tests of whole pages.

Everything goes through the domain functions; only what sidecars and engines would say about
themselves (spools, leases, samples, receipts) is written as rows. The same seed, the same day.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from django.db.models import F

from budgets.domain.budgets import BudgetSpec, arm_budgets, create_budget
from budgets.domain.prices import import_catalogue, set_own_price
from budgets.domain.rollups import fold_usage
from budgets.domain.usage import book_refusals, book_usage
from budgets.enums import WindowKind
from budgets.models import Balance, Budget, Lease, PriceVersion, Transfer
from controlplane.audit.domain import Actor
from controlplane.identity.domain import (
    add_member,
    create_agent,
    create_organization,
    create_project,
    create_team,
    issue_agent_key,
    issue_api_token,
)
from controlplane.identity.enums import Role, Scope
from controlplane.identity.ids import new_id
from controlplane.identity.models import Agent, Organization, Person
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.domain.orders import order_agent
from enforcement.models import (
    NodeSample,
    NodeUsage,
    Order,
    OrderAcknowledgement,
    ServingNode,
    Sidecar,
    Spool,
)
from enforcement.rules.money import NANOS_PER_USD, TokenUsage, charge_nanos
from enforcement.rules.wire import (
    HoldMode,
    Mode,
    OrderKind,
    Outcome,
    Per,
    Rates,
    RefusalCount,
    ScopeKind,
    Unit,
    UsageEvent,
)

HOUR_MS = 3_600_000
PASSWORD = "a-long-password-for-tests"
EMAIL = "dana@northwind.example"
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/Los_Angeles",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Pacific/Auckland",
    "Pacific/Honolulu",
    "America/Sao_Paulo",
    "Asia/Dubai",
)
MODELS = {"gemma-3-270m": "gpu-a", "qwen3-8b": "gpu-a", "llama-3.3-70b": "gpu-b"}
RATES = {
    "gemma-3-270m": Rates(
        input=200_000_000, cached_input=50_000_000, cache_write=200_000_000, output=600_000_000
    ),
    "qwen3-8b": Rates(
        input=900_000_000, cached_input=200_000_000, cache_write=900_000_000, output=2_800_000_000
    ),
    "llama-3.3-70b": Rates(
        input=5_900_000_000,
        cached_input=1_500_000_000,
        cache_write=5_900_000_000,
        output=7_900_000_000,
    ),
}
AGENTS = (
    # slug, name, project, model, calls in the last day
    ("ticket-triage", "Ticket triage", "support", "qwen3-8b", 210),
    ("refund-drafter", "Refund drafter", "support", "qwen3-8b", 90),
    ("code-reviewer", "Code reviewer", "platform", "llama-3.3-70b", 160),
    ("test-writer", "Test writer", "platform", "llama-3.3-70b", 120),
    ("paper-reader", "Paper reader", "papers", "llama-3.3-70b", 75),
    ("web-crawler", "Web crawler", "papers", "gemma-3-270m", 260),
    ("runaway", "Invoice matcher", "support", "qwen3-8b", 140),
    ("night-batch", "Night batch", "platform", "gemma-3-270m", 0),
)


@dataclass
class Sample:
    """What was made, for those who look at it."""

    organization: Organization
    owner: Person
    now: datetime
    agents: dict[str, Agent] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    order: Order | None = None

    @property
    def actor(self) -> Actor:
        return Actor(kind="person", id=str(self.owner.id), label=str(self.owner))


def make_sample(*, now: datetime, calls: bool = True) -> Sample:
    """The company, with or without its day of calls."""
    system, zone = Actor.system("sample"), afternoon_zone(now)
    began = now - timedelta(days=3)
    organization = create_organization(
        slug="northwind", name="Northwind Logistics", time_zone=zone, actor=system, now=began
    )
    owner = add_member(
        organization_id=organization.id,
        email=EMAIL,
        name="Dana Whitfield",
        role=Role.OWNER,
        password=PASSWORD,
        actor=system,
        now=began,
    ).person
    sample = Sample(organization, owner, now)
    if calls:
        import_catalogue(now=began)
    _people(sample, began)
    _agents(sample, began)
    _rates(sample, began)
    _budgets(sample, began)
    if calls:
        _calls(sample)
        _fleet(sample)
        _kill(sample)
    organization.refresh_from_db()
    arm_budgets(organization_id=organization.id, revision=organization.policy_revision, now=now)
    fold_usage(now=now)
    return sample


def _people(sample: Sample, at: datetime) -> None:
    common: dict[str, Any] = {"organization_id": sample.organization.id, "actor": sample.actor}
    for email, name, role in (
        ("imran@northwind.example", "Imran Qureshi", Role.ADMIN),
        ("lea@northwind.example", "Léa Fontaine", Role.VIEWER),
    ):
        add_member(email=email, name=name, role=role, now=at, **common)
    issue_api_token(
        name="Finance export",
        scopes=[Scope.READ.value],
        person_id=sample.owner.id,
        now=at,
        **common,
    )


def _agents(sample: Sample, at: datetime) -> None:
    common: dict[str, Any] = {
        "organization_id": sample.organization.id,
        "actor": sample.actor,
        "now": at,
    }
    teams = {
        slug: create_team(slug=slug, name=name, **common)
        for slug, name in (("operations", "Operations"), ("research", "Research"))
    }
    projects = {
        slug: create_project(slug=slug, name=name, team_id=teams[team].id, **common)
        for slug, name, team in (
            ("support", "Customer support", "operations"),
            ("platform", "Developer platform", "operations"),
            ("papers", "Paper digest", "research"),
        )
    }
    for slug, name, project, _, _ in AGENTS:
        agent = create_agent(
            slug=slug,
            name=name,
            team_id=projects[project].team_id,
            project_id=projects[project].id,
            owner_id=sample.owner.id,
            **common,
        )
        sample.agents[slug] = agent
        issue_agent_key(agent_id=agent.id, name="production", **common)


def _rates(sample: Sample, at: datetime) -> None:
    for model, rates in RATES.items():
        set_own_price(
            organization_id=sample.organization.id,
            model=model,
            rates=rates,
            actor=sample.actor,
            now=at,
            reason="measured cost of our own GPUs",
        )


def _budgets(sample: Sample, at: datetime) -> None:
    zone = sample.organization.time_zone
    month = {"window_kind": WindowKind.CALENDAR, "period": "month", "time_zone": zone}
    day = {"window_kind": WindowKind.CALENDAR, "period": "day", "time_zone": zone}
    agent, scope = ScopeKind.AGENT, sample.agents
    project = {slug: a.project_id for slug, a in scope.items()}
    rows: tuple[tuple[str, ScopeKind, UUID | None, Unit, int, dict[str, Any]], ...] = (
        (
            "Company month",
            ScopeKind.ORGANIZATION,
            sample.organization.id,
            Unit.USD,
            _usd("400"),
            month,
        ),
        (
            "Each agent a day",
            ScopeKind.ORGANIZATION,
            sample.organization.id,
            Unit.USD,
            _usd("20"),
            {**day, "per": Per.AGENT, "mode": Mode.SOFT},
        ),
        (
            "Operations month",
            ScopeKind.TEAM,
            scope["ticket-triage"].team_id,
            Unit.USD,
            _usd("60"),
            month,
        ),
        ("Support day", ScopeKind.PROJECT, project["ticket-triage"], Unit.USD, _usd("10"), day),
        ("Platform day", ScopeKind.PROJECT, project["code-reviewer"], Unit.USD, _usd("40"), day),
        (
            "Paper digest tokens",
            ScopeKind.PROJECT,
            project["paper-reader"],
            Unit.TOKENS,
            9_000_000,
            day,
        ),
        ("Crawler requests", agent, scope["web-crawler"].id, Unit.REQUESTS, 250, day),
        (
            "Invoice matcher cap",
            agent,
            scope["runaway"].id,
            Unit.USD,
            _usd("4"),
            {**day, "hold_mode": HoldMode.METERED},
        ),
        (
            "Reviewer session",
            agent,
            scope["code-reviewer"].id,
            Unit.USD,
            _usd("2.50"),
            {"per": Per.SESSION},
        ),
    )
    for name, kind, scope_id, unit, limit, more in rows:
        assert scope_id is not None
        spec = BudgetSpec(
            name=name, scope_kind=kind, scope_id=scope_id, unit=unit, limit_amount=limit, **more
        )
        sample.budgets[name] = create_budget(
            organization_id=sample.organization.id, spec=spec, actor=sample.actor, now=at
        )


def _usd(text: str) -> int:
    dollars, _, cents = text.partition(".")
    return int(dollars) * NANOS_PER_USD + int(cents.ljust(9, "0"))


def _calls(sample: Sample) -> None:
    chance = random.Random(20_260_704)
    zone = ZoneInfo(sample.organization.time_zone)
    prices = {row.model: row for row in PriceVersion.objects.filter(own=True)}
    events = []
    for slug, _, _, model, count in AGENTS:
        for index in range(count):
            at = _moment(chance, sample.now, zone)
            events.append(_event(sample.agents[slug], model, prices[model], at, chance, index))
    events.sort(key=lambda event: event.started_at_ms)
    for hour, group in groupby(events, key=lambda event: event.started_at_ms // HOUR_MS):
        book_usage(
            organization_id=sample.organization.id,
            sidecar_id=None,
            events=list(group),
            now=min(sample.now, datetime.fromtimestamp((hour + 1) * 3600, tz=UTC)),
        )
    _refusals(sample)


def _moment(chance: random.Random, now: datetime, zone: ZoneInfo) -> datetime:
    """More calls in working hours than at night."""
    while True:
        at = now - timedelta(seconds=chance.randint(20, 23 * 3600))
        busy = 0.2 + 0.8 * max(0, 1 - abs(at.astimezone(zone).hour - 12) / 9)
        if chance.random() < busy:
            return at


def _event(
    agent: Agent,
    model: str,
    price: PriceVersion,
    at: datetime,
    chance: random.Random,
    index: int,
) -> UsageEvent:
    tokens_in, tokens_out = chance.randint(1_800, 42_000), chance.randint(40, 1_400)
    usage = TokenUsage(input_tokens=tokens_in, output_tokens=tokens_out)
    outcome = Outcome.COMPLETED
    if agent.slug == "runaway" and index % 9 == 0:
        outcome = Outcome.CUT
    elif index % 67 == 13:
        outcome = Outcome.CLAMPED
    elif index % 89 == 21:
        outcome = Outcome.CLIENT_GONE
    return UsageEvent(
        id=str(new_id()),
        agent=str(agent.id),
        model=model,
        node=MODELS[model],
        started_at_ms=int(at.timestamp() * 1000),
        outcome=outcome,
        session=f"{agent.slug[:6]}-{index // 12:03d}",
        stream=True,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        charge_nanos=charge_nanos(usage, price.to_policy()),
        price_version=str(price.id),
        duration_ms=tokens_out * 11 + 120,
        ttft_ms=120,
    )


def _refusals(sample: Sample) -> None:
    rows = (
        ("runaway", "budget_exhausted", 14, 3, "qwen3-8b", "Invoice matcher cap",
         "the day's limit of $4.00 is spent; it starts again at 00:00"),
        ("runaway", "agent_killed", 3, 1, "qwen3-8b", None, "the agent was killed: looping"),
        ("web-crawler", "model_unpriced", 6, 41, "mixtral-8x22b", None,
         "no price is known for mixtral-8x22b"),
        ("paper-reader", "rate_limited", 9, 95, "llama-3.3-70b", None, "60 requests a minute"),
    )  # fmt: skip
    refusals = [
        RefusalCount(
            id=str(uuid4()),
            agent=str(sample.agents[slug].id),
            code=code,
            count=count,
            last_at_ms=int((sample.now - timedelta(minutes=minutes)).timestamp() * 1000),
            model=model,
            budget=str(sample.budgets[budget].id) if budget else "",
            message=message,
        )
        for slug, code, count, minutes, model, budget, message in rows
    ]
    book_refusals(organization_id=sample.organization.id, refusals=refusals, now=sample.now)


def _fleet(sample: Sample) -> None:
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
    from budgets.queries import day_start, spend_by

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


def _kill(sample: Sample) -> None:
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


def afternoon_zone(now: datetime) -> str:
    """A time zone in which the day is far on, so that "today" has something to show."""
    return min(ZONES, key=lambda name: abs(now.astimezone(ZoneInfo(name)).hour - 16))
