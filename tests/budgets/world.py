"""A small organization to test in, and rows as other parts of the program would write them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from budgets.domain.budgets import BudgetSpec, create_budget
from budgets.models import Balance, Budget, Lease, Transfer
from controlplane.audit.domain import Actor
from controlplane.identity.ids import new_id
from controlplane.identity.models import Agent, Organization, Project, Team
from enforcement.rules import wire
from enforcement.rules.policy import ScopeKind, Unit
from enforcement.rules.windows import EPOCH
from enforcement.rules.wire import Outcome

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)  # a Wednesday
ACTOR = Actor(kind="person", id="p1", label="Olive Owner")


@dataclass(frozen=True)
class World:
    """Organization › team › project › agent, and a second agent that belongs to nobody."""

    organization: Organization
    team: Team
    project: Project
    agent: Agent
    loner: Agent

    @property
    def id(self) -> UUID:
        return self.organization.id


def make_world(slug: str = "acme") -> World:
    organization = Organization.objects.create(slug=slug, name=slug.title(), created_at=NOW)
    common: dict[str, Any] = {"organization": organization, "created_at": NOW}
    team = Team.objects.create(slug="research", name="Research", **common)
    project = Project.objects.create(slug="papers", name="Papers", team=team, **common)
    common["state_changed_at"] = NOW
    agent = Agent.objects.create(slug="reader", name="Reader", project=project, **common)
    loner = Agent.objects.create(slug="loner", name="Loner", **common)
    return World(organization, team, project, agent, loner)


def spec(world: World, **changes: Any) -> BudgetSpec:
    """A hard lifetime dollar budget of one dollar on the agent, but for what is changed."""
    values: dict[str, Any] = {
        "name": "Reader",
        "scope_kind": ScopeKind.AGENT,
        "scope_id": world.agent.id,
        "unit": Unit.USD,
        "limit_amount": 1_000_000_000,
    }
    return BudgetSpec(**values | changes)


def make_budget(world: World, *, now: datetime = NOW, **changes: Any) -> Budget:
    return create_budget(
        organization_id=world.id, spec=spec(world, **changes), actor=ACTOR, now=now
    )


def make_balance(budget: Budget, **changes: Any) -> Balance:
    values: dict[str, Any] = {
        "organization_id": budget.organization_id,
        "budget": budget,
        "value": "",
        "window_start": EPOCH,
        "window_end": None,
        "hard": budget.mode == "hard",
        "limit_amount": budget.limit_amount,
        "cap_amount": budget.limit_amount,
        "updated_at": NOW,
    }
    return Balance.objects.create(**values | changes)


def make_lease(balance: Balance, *, amount: int, **changes: Any) -> Lease:
    """A lease with its grant booked, as the coordinator does it."""
    values: dict[str, Any] = {
        "organization_id": balance.organization_id,
        "balance": balance,
        "spool": uuid4(),
        "epoch": 1,
        "incarnation": uuid4(),
        "group_key": new_id(),
        "group_hash": "0" * 64,
        "amount": amount,
        "granted_at": NOW,
        "expires_at": NOW + timedelta(seconds=30),
    }
    lease = Lease.objects.create(**values | changes)
    balance.held_amount += amount
    balance.save(update_fields=["held_amount"])
    Transfer.objects.create(
        organization_id=balance.organization_id,
        balance=balance,
        lease=lease,
        kind="grant",
        amount=amount,
        at=NOW,
    )
    return lease


def call(world: World, **changes: Any) -> wire.UsageEvent:
    """A finished call of the agent: 100 + 20 tokens for 1,500 nano-dollars, ten seconds ago."""
    values: dict[str, Any] = {
        "id": str(new_id()),
        "agent": str(world.agent.id),
        "model": "gemma",
        "started_at_ms": ms(NOW) - 10_000,
        "outcome": Outcome.COMPLETED,
        "input_tokens": 100,
        "output_tokens": 20,
        "charge_nanos": 1_500,
    }
    return wire.UsageEvent(**values | changes)


def ms(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


def amounts(budget: Budget, value: str = "") -> tuple[int, int, int, int]:
    """(spent, held, suspense, overrun), summed over the windows of one split value."""
    rows = Balance.objects.filter(budget=budget, value=value)
    return (
        sum(row.spent_amount for row in rows),
        sum(row.held_amount for row in rows),
        sum(row.suspense_amount for row in rows),
        sum(row.overrun_amount for row in rows),
    )
