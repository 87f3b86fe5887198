"""The work behind `verify.py`: a journal of many transfers, sealed and checked.

Reads a JSON object `{"transfers", "rounds"}` from standard input, prints medians as JSON.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()

from django.db import connection

from budgets.domain.budgets import BudgetSpec, create_budget
from budgets.domain.seals import check_chain, seal_journal
from budgets.domain.verify import verify
from controlplane.audit.domain import Actor
from controlplane.identity.domain import create_agent, create_organization
from enforcement.rules.policy import ScopeKind, Unit

ACTOR = Actor.system("benchmark")
BALANCES, LEASE = 200, 10
FILL = [
    """INSERT INTO budgets_balance (id, organization_id, budget_id, value, window_start, hard,
           lends, limit_amount, cap_amount, spent_amount, held_amount, suspense_amount,
           overrun_amount, updated_at)
       SELECT gen_random_uuid(), b.organization_id, b.id, 'v' || n, 'epoch', true, false,
           b.limit_amount, b.limit_amount, 0, 0, 0, 0, now()
       FROM budgets_budget b, generate_series(1, %(balances)s) n WHERE b.id = %(budget)s""",
    """INSERT INTO budgets_lease (id, organization_id, balance_id, spool, epoch, incarnation,
           group_key, group_hash, amount, granted_at, expires_at, closed_at, used_amount,
           returned_amount, overrun_amount, open_amount, state)
       SELECT gen_random_uuid(), b.organization_id, b.id, gen_random_uuid(), 1, gen_random_uuid(),
           gen_random_uuid(), '', %(lease)s, now(), now(), now(), 7, 3, 0, 0, 'settled'
       FROM budgets_balance b, generate_series(1, %(leases)s) n WHERE b.budget_id = %(budget)s""",
    """INSERT INTO budgets_transfer (id, organization_id, balance_id, lease_id, kind, amount, at,
           actor, reason)
       SELECT gen_random_uuid(), l.organization_id, l.balance_id, l.id, m.kind, m.amount, now(),
           '', ''
       FROM budgets_lease l JOIN budgets_balance b ON b.id = l.balance_id,
           (VALUES ('grant', %(lease)s), ('settle', 7), ('release', 3)) AS m (kind, amount)
       WHERE b.budget_id = %(budget)s""",
    """UPDATE budgets_balance b SET spent_amount = 7 * %(leases)s WHERE budget_id = %(budget)s""",
]


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def fill(transfers: int) -> int:
    """Settled leases, three transfers each; how many transfers."""
    now = datetime.now(tz=UTC)
    organization = create_organization(
        slug=f"verify-{uuid4().hex[:8]}", name="verify", actor=ACTOR, now=now
    )
    agent = create_agent(
        organization_id=organization.id, slug="a1", name="A1", actor=ACTOR, now=now
    )
    budget = create_budget(
        organization_id=organization.id,
        spec=BudgetSpec(
            name="cap",
            scope_kind=ScopeKind.AGENT,
            scope_id=agent.id,
            unit=Unit.TOKENS,
            limit_amount=2**60,
        ),
        actor=ACTOR,
        now=now,
    )
    given = {
        "budget": budget.id,
        "balances": BALANCES,
        "leases": -(-transfers // (3 * BALANCES)),
        "lease": LEASE,
    }
    with connection.cursor() as cursor:
        for statement in FILL:
            cursor.execute(statement, given)
        cursor.execute("ANALYZE")
        cursor.execute("SELECT count(*) FROM budgets_transfer")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def run(given: dict[str, int]) -> dict[str, float]:
    transfers = fill(given["transfers"])
    later = datetime.now(tz=UTC)
    seal_s = sum(
        timed(lambda turn=turn: seal_journal(now=later + timedelta(seconds=10 * turn)))  # type: ignore[misc]
        for turn in range(3)
    )
    balances, chain = [], []
    for _ in range(given["rounds"]):
        balances.append(timed(verify))
        chain.append(timed(check_chain))
    found = check_chain()
    if not verify().holds or found.breaks or found.sealed != transfers:
        raise SystemExit("the journal does not hold")
    return {
        "transfers": transfers,
        "seal_s": seal_s,
        "balances_s": statistics.median(balances),
        "chain_s": statistics.median(chain),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
