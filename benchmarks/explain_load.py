"""The work behind `explain.py`: an organization with a thousand budgets, in the stack's database.

Reads a JSON object `{"budgets", "rounds"}` from standard input, prints medians as JSON.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()

from budgets.domain.matchers import compiled_budgets
from budgets.models import Balance, Budget
from budgets.queries.explain import Wish, explain_request
from controlplane.audit.domain import Actor
from controlplane.identity.domain import bump_policy, create_agent, create_organization
from controlplane.identity.models import Agent
from enforcement.rules.matching import Matcher, Subject
from enforcement.rules.windows import window_at

ACTOR = Actor.system("benchmark")
AGENTS, MODELS, NODES, USERS = 100, 100, 50, 200


def shape(number: int, agents: list[Agent]) -> dict[str, Any]:
    """Four for each agent, three for each model, one for each user, two for each node."""
    agent, turn = agents[number // 10 % AGENTS], number // 10
    organization = {"scope_kind": "organization", "scope_id": agent.organization_id}
    match number % 10:
        case 0:
            return {"scope_kind": "agent", "scope_id": agent.id, "per": "user", "mode": "soft"}
        case 1 | 2 | 3:
            return {"scope_kind": "agent", "scope_id": agent.id}
        case 4 | 5:
            return organization | {"filters": {"model": [f"model-{turn % MODELS}"]}}
        case 6:
            return organization | {"filters": {"model": [f"model-{turn % MODELS}*"]}}
        case 7 | 8:
            return organization | {"filters": {"user": [f"user-{number % USERS}"]}}
        case _:
            nodes = [f"node-{turn % NODES}"]
            return organization | {"filters": {"node": nodes, "tag:env": ["prod", "test*"]}}


def fill(count: int, agents: list[Agent], now: datetime) -> None:
    agent = agents[0]
    common = {
        "organization_id": agent.organization_id,
        "unit": "tokens",
        "limit_amount": 10**9,
        "window_kind": "calendar",
        "period": "month",
        "state": "armed",
        "armed_at": now,
        "created_at": now,
    }
    budgets = Budget.objects.bulk_create(
        Budget(name=f"budget {number}", **{**common, **shape(number, agents)})
        for number in range(count)
    )
    start, end = window_at(budgets[0].window, now)
    Balance.objects.bulk_create(
        Balance(
            organization_id=agent.organization_id,
            budget=budget,
            window_start=start,
            window_end=end,
            hard=budget.mode == "hard",
            limit_amount=10**9,
            cap_amount=10**9,
            spent_amount=number,
            updated_at=now,
        )
        for number, budget in enumerate(budgets)
    )
    bump_policy(agent.organization_id)


def facts(number: int) -> dict[str, Any]:
    return {
        "model": f"model-{number % MODELS}",
        "node": f"node-{number % NODES}",
        "user": f"user-{number % USERS}",
        "tags": {"env": "prod" if number % 2 else "dev"},
    }


def median_us(work: Callable[[int], object], rounds: int) -> float:
    took = []
    for number in range(rounds):
        begun = time.perf_counter_ns()
        work(number)
        took.append((time.perf_counter_ns() - begun) / 1_000)
    return statistics.median(took)


def run(given: dict[str, int]) -> dict[str, float]:
    now = datetime.now(tz=UTC)
    organization = create_organization(slug="bench", name="bench", actor=ACTOR, now=now)
    agents = [
        create_agent(
            organization_id=organization.id, slug=f"a{n}", name=f"A{n}", actor=ACTOR, now=now
        )
        for n in range(AGENTS)
    ]
    fill(given["budgets"], agents, now)
    agent = agents[7]
    compiled = compiled_budgets(organization.id)
    policies = [budget.to_policy() for budget in compiled.budgets.values()]
    subjects = [Subject(str(organization.id), str(agent.id), **facts(n)) for n in range(2_000)]

    def match(matcher: Matcher) -> Callable[[int], object]:
        def once(number: int) -> object:
            subject = subjects[number % len(subjects)]
            return matcher.plan(subject).balances(subject)

        return once

    matcher = Matcher(policies)
    matcher.plan(subjects[0])
    rounds = given["rounds"]
    return {
        "matched": statistics.mean(len(matcher.plan(s).budgets) for s in subjects),
        "first_us": median_us(match(_cold(policies, subjects[0])), 150),
        "again_us": median_us(match(matcher), 2_000),
        "explain_us": median_us(
            lambda n: explain_request(
                Wish(agent=agent, input_tokens=100, **facts(n)), now=datetime.now(tz=UTC)
            ),
            rounds,
        ),
    }


def _cold(policies: list[Any], subject: Subject) -> Matcher:
    """A matcher that has seen none of the facts but those of one call."""
    matcher = Matcher(policies)
    matcher.plan(subject)
    return matcher


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
