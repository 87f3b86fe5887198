"""The control plane's side of a benchmark: makes agents, prices and budgets, reads the ledger.

    python benchmarks/scene.py ACTION < GIVEN.json > ANSWER.json

A process of its own, because it needs Django. Run by `benchmarks.common.scene`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import UUID

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

import django

django.setup()

from django.db import connection
from django.utils import timezone

from budgets.domain.budgets import BudgetSpec, change_budget, create_budget
from budgets.domain.incarnation import HISTORY, current_incarnation, is_learning
from budgets.domain.prices import set_own_price
from budgets.domain.verify import verify
from budgets.enums import BudgetState
from budgets.models import Balance, Budget, Lease, LedgerIncarnation, PriceVersion, UsageEvent
from controlplane.audit.domain import Actor
from controlplane.identity.domain import create_agent, issue_agent_key, issue_api_token
from controlplane.identity.models import Organization
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.models import NodeSample, ServingNode
from enforcement.rules.policy import HoldMode, Mode, Per, Rates, ScopeKind, Unit

ACTOR = Actor.system("benchmark")
PATIENCE_S = 60


def organization() -> Organization:
    return Organization.objects.get(slug="example")


def agent(given: dict[str, Any]) -> dict[str, Any]:
    """An agent with a key, a price for its model, and budgets; returns when they are in force."""
    owner = organization()
    now = timezone.now()
    common: dict[str, Any] = {"organization_id": owner.pk, "actor": ACTOR, "now": now}
    for model, rates in given.get("prices", {}).items():
        if not PriceVersion.objects.filter(organization=owner, model=model).exists():
            set_own_price(model=model, rates=Rates(**rates), reason="benchmark", **common)
    made = create_agent(slug=given["slug"], name=given["slug"], **common)
    key = issue_agent_key(agent_id=made.pk, name="benchmark", **common)
    budgets = []
    for wish in given["budgets"]:
        spec = BudgetSpec(
            name=f"{given['slug']} {wish['name']}",
            scope_kind=ScopeKind(wish.get("scope", "agent")),
            scope_id=owner.pk if wish.get("scope") == "organization" else made.pk,
            unit=Unit(wish["unit"]),
            limit_amount=wish["limit"],
            hold_mode=HoldMode(wish.get("hold_mode", "strict")),
            mode=Mode(wish.get("mode", "hard")),
            per=Per(wish.get("per", "")),
        )
        budgets.append(create_budget(spec=spec, **common).pk)
    eventually(lambda: not Budget.objects.filter(pk__in=budgets, state=BudgetState.ARMING).exists())
    return {"agent": str(made.pk), "key": key.secret, "budgets": [str(b) for b in budgets]}


def token(given: dict[str, Any]) -> dict[str, Any]:
    """An API token with scopes."""
    issued = issue_api_token(
        organization_id=organization().pk,
        name="benchmark",
        scopes=given["scopes"],
        actor=ACTOR,
        now=timezone.now(),
    )
    return {"token": issued.secret}


def sidecar(given: dict[str, Any]) -> dict[str, Any]:
    """The token of a new sidecar."""
    enrolled = enrol_sidecar(
        organization_id=organization().pk, name=given["name"], actor=ACTOR, now=timezone.now()
    )
    return {"token": enrolled.secret}


def raise_limit(given: dict[str, Any]) -> dict[str, Any]:
    """More for a budget."""
    budget = Budget.objects.get(name=given["budget_name"], archived_at=None)
    limit = budget.limit_amount + given["by"]
    change_budget(
        organization_id=organization().pk,
        budget_id=budget.pk,
        changes={"limit_amount": limit},
        actor=ACTOR,
        now=timezone.now(),
    )
    return {"limit": limit}


def check_journal(_given: dict[str, Any]) -> dict[str, Any]:
    """Whether every balance is what its transfers say."""
    report = verify()
    return {"holds": report.holds, "balances": report.balances}


def history(_given: dict[str, Any]) -> dict[str, Any]:
    """Which database this is, and what the ledger knows of it (L11)."""
    with connection.cursor() as cursor:
        cursor.execute(HISTORY)
        identifier, _, timeline = cursor.fetchone()
    current = current_incarnation(now=timezone.now())
    return {
        "timeline": timeline,
        "noticed": (current.system_identifier, current.timeline) == (int(identifier), timeline),
        "learning": is_learning(organization().pk),
        "incarnations": LedgerIncarnation.objects.count(),
        "adopted": Lease.objects.filter(group_hash="adopted").count(),
    }


def ledger(given: dict[str, Any]) -> dict[str, Any]:
    """The counters of a budget, once nothing of it is held any more."""
    budget = UUID(given["budget"])

    def quiet() -> bool:
        rows = Balance.objects.filter(budget_id=budget)
        return rows.exists() and not rows.filter(held_amount__gt=0).exists()

    settled = eventually(quiet)
    balance = Balance.objects.get(budget_id=budget)
    events = UsageEvent.objects.filter(agent_id=UUID(given["agent"]))
    return {
        "settled": settled,
        "limit": balance.limit_amount,
        "spent": balance.spent_amount,
        "held": balance.held_amount,
        "suspense": balance.suspense_amount,
        "overrun": balance.overrun_amount,
        "events": events.count(),
        "charged": sum(events.values_list("charge_nanos", flat=True)),
    }


def nodes(given: dict[str, Any]) -> dict[str, Any]:
    """A serving node for each port."""
    now = timezone.now()
    ServingNode.objects.bulk_create(
        ServingNode(
            organization=organization(),
            name=f"exporter-{number:04}",
            base_url=f"http://127.0.0.1:{port}",
            metrics_path="/metrics",
            created_at=now,
        )
        for number, port in enumerate(given["ports"])
    )
    return {}


def visits(given: dict[str, Any]) -> dict[str, Any]:
    """How much later than due each visit was, in seconds; the last gap ends now."""
    now = timezone.now()
    read: dict[Any, list[Any]] = {}
    for node, at in NodeSample.objects.order_by("at").values_list("node_id", "at"):
        read.setdefault(node, []).append(at)
    gaps = [
        (after - before).total_seconds()
        for times in read.values()
        for before, after in pairwise([*times, now])
    ]
    made = ServingNode.objects.filter(name__startswith="exporter-")  # not the stack's own
    return {
        "lateness_s": [max(0.0, gap - given["every_s"]) for gap in gaps],
        "samples": sum(map(len, read.values())),
        "unread": made.filter(last_scraped_at=None).count(),
        "failing": made.exclude(last_error="").count(),
    }


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


ACTIONS = {
    "agent": agent,
    "token": token,
    "sidecar": sidecar,
    "ledger": ledger,
    "raise": raise_limit,
    "verify": check_journal,
    "history": history,
    "nodes": nodes,
    "visits": visits,
}

if __name__ == "__main__":
    json.dump(ACTIONS[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
