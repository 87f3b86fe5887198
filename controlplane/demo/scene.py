"""The demo's side of the control plane: makes the agents, and reads the ledger afterwards.

    python -m controlplane.demo.scene prepare
    python -m controlplane.demo.scene figures < expectations.json

A process of its own, because it needs Django and the rest of the demo does not. Each run of the
demo has new agents, so that it can be run again on the same data.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from controlplane.demo.cast import (
    CAST,
    INPUT_NANOS_PER_MTOK,
    OUTPUT_NANOS_PER_MTOK,
    Role,
)
from controlplane.demo.model import MODEL

if TYPE_CHECKING:
    from controlplane.audit.domain import Actor
    from controlplane.identity.models import Organization

ORGANIZATION = "example"
PATIENCE_S = 30
POLL_S = 0.2


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    import django

    django.setup()
    if sys.argv[1:] == ["prepare"]:
        answer = prepare()
    elif sys.argv[1:] == ["figures"]:
        answer = figures(json.load(sys.stdin))
    else:
        sys.exit(__doc__)
    json.dump(answer, sys.stdout)


def prepare() -> dict[str, Any]:
    """Price the model, make the cast with budgets and keys, wait until the caps are in force."""
    from controlplane.audit.domain import Actor
    from controlplane.identity.models import Organization

    organization = Organization.objects.get(slug=ORGANIZATION)
    actor = Actor.system("demo")
    _set_price(organization, actor)
    run = secrets.token_hex(2)
    cast = {role.slug: _enter(role, organization, actor, run=run) for role in CAST}
    budgets = [UUID(entry["budget"]) for entry in cast.values()]
    armed = _eventually(lambda: _all_armed(budgets))
    return {"cast": cast, "armed": armed}


def _set_price(organization: "Organization", actor: "Actor") -> None:
    from django.utils import timezone

    from budgets.domain.prices import set_own_price
    from budgets.models import PriceVersion
    from enforcement.rules.policy import Rates

    if PriceVersion.objects.filter(organization=organization, model=MODEL).exists():
        return
    rates = Rates(
        input=INPUT_NANOS_PER_MTOK,
        cached_input=INPUT_NANOS_PER_MTOK,
        cache_write=INPUT_NANOS_PER_MTOK,
        output=OUTPUT_NANOS_PER_MTOK,
    )
    set_own_price(
        organization_id=organization.pk,
        model=MODEL,
        rates=rates,
        actor=actor,
        now=timezone.now(),
        reason="the demo's own price",
    )


def _enter(role: Role, organization: "Organization", actor: "Actor", *, run: str) -> dict[str, str]:
    """One agent with its dollar cap and its key."""
    from django.utils import timezone

    from budgets.domain.budgets import BudgetSpec, create_budget
    from controlplane.identity.domain.agents import create_agent
    from controlplane.identity.domain.credentials import issue_agent_key
    from enforcement.rules.policy import HoldMode, ScopeKind, Unit

    common: dict[str, Any] = {
        "organization_id": organization.pk,
        "actor": actor,
        "now": timezone.now(),
    }
    agent = create_agent(
        slug=f"{role.slug}-{run}",
        name=role.name,
        requests_per_minute=role.requests_per_minute,
        **common,
    )
    spec = BudgetSpec(
        name=f"{role.name} {run}",
        scope_kind=ScopeKind.AGENT,
        scope_id=agent.pk,
        unit=Unit.USD,
        limit_amount=role.cap_nanos,
        hold_mode=HoldMode(role.hold_mode),
    )
    budget = create_budget(spec=spec, **common)
    key = issue_agent_key(agent_id=agent.pk, name="demo", **common)
    return {"agent": str(agent.pk), "budget": str(budget.pk), "key": key.secret}


def _all_armed(budgets: list[UUID]) -> bool:
    from budgets.enums import BudgetState
    from budgets.models import Budget

    return not Budget.objects.filter(id__in=budgets).exclude(state=BudgetState.ARMED).exists()


def figures(expected: dict[str, Any]) -> dict[str, Any]:
    """What the ledger says of each agent, once all that the agents have seen has arrived."""
    _eventually(lambda: all(_has_arrived(entry) for entry in expected.values()))
    return {slug: _figures_of(entry) for slug, entry in expected.items()}


def _has_arrived(entry: dict[str, Any]) -> bool:
    seen = _figures_of(entry)
    whole = seen["calls"] >= entry["calls"] and seen["refused"] >= entry["refused"]
    return bool(whole and seen["spent_nanos"] + seen["overrun_nanos"] == seen["charged_nanos"])


def _figures_of(entry: dict[str, Any]) -> dict[str, Any]:
    from django.db.models import Sum

    from budgets.models import Balance, Refusal, UsageEvent

    events = list(UsageEvent.objects.filter(agent_id=entry["agent"]).order_by("started_at"))
    balance = Balance.objects.filter(budget_id=entry["budget"]).first()
    refusals = Refusal.objects.filter(agent_id=entry["agent"])
    return {
        "calls": len(events),
        "input_tokens": sum(event.input_tokens for event in events),
        "output_tokens": sum(event.output_tokens for event in events),
        "charged_nanos": sum(event.charge_nanos for event in events),
        "outcomes": [event.outcome for event in events],
        "estimated": sum(event.estimated or event.presumed for event in events),
        "refused": refusals.aggregate(total=Sum("count"))["total"] or 0,
        "refusal_codes": sorted(set(refusals.values_list("code", flat=True))),
        "spent_nanos": balance.spent_amount if balance else 0,
        "overrun_nanos": balance.overrun_amount if balance else 0,
        "limit_nanos": balance.limit_amount if balance else None,
    }


def _eventually(condition: Callable[[], bool]) -> bool:
    """Wait for what other processes are about to write; the answer tells whether it came."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


if __name__ == "__main__":
    main()
