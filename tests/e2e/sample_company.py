"""The sample company: its people, agents, rates and budgets, and a day of their calls."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from budgets.domain.budgets import BudgetSpec, create_budget
from budgets.domain.prices import set_own_price
from budgets.domain.usage import book_refusals, book_usage
from budgets.enums import WindowKind
from budgets.models import Budget, PriceVersion
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
from enforcement.models import (
    Order,
)
from enforcement.rules.money import NANOS_PER_USD, TokenUsage, charge_nanos
from enforcement.rules.policy import HoldMode, Mode, Per, Rates, ScopeKind, Unit
from enforcement.rules.wire import Outcome, RefusalCount, UsageEvent

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


def make_company(*, now: datetime) -> Sample:
    """The company before its first call."""
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
    _people(sample, began)
    _agents(sample, began)
    _rates(sample, began)
    _budgets(sample, began)
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


def make_calls(sample: Sample) -> None:
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
        ("web-crawler", "unpriced_model", 6, 41, "mixtral-8x22b", None,
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


def afternoon_zone(now: datetime) -> str:
    """A time zone in which the day is far on, so that "today" has something to show."""
    return min(ZONES, key=lambda name: abs(now.astimezone(ZoneInfo(name)).hour - 16))
