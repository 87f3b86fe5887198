"""The work behind `explore.py`, in the stack's database.

Reads a JSON object `{"events", "rounds"}` from standard input, prints figures as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from typing import Any
from uuid import UUID

import django
from common import median, percentile

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()

from django.db import connection, transaction

from budgets.domain.dimensions import COLUMNS
from budgets.domain.seed import ACTOR, SHAPES, Size, seed
from budgets.models import UsageCell
from budgets.queries.explore import ask, grouping_of, pair_behind, planned, statement
from budgets.queries.exploresql import Question, of_cells
from controlplane.identity.domain.credentials import issue_api_token
from controlplane.identity.enums import Scope
from controlplane.identity.models import Organization

DAYS = 90
NAMES = (*COLUMNS, "tag:env")
SCALE = 10


def questions(organization_id: UUID, today: date) -> Iterator[Question]:
    for pair in combinations(NAMES, 2):
        yield Question(
            organization_id=organization_id,
            since=today - timedelta(days=DAYS),
            until=today,
            by=tuple(map(grouping_of, pair)),
        )


def plan(question: Question) -> str:
    """All that `EXPLAIN` tells but costs and numbers of rows: nodes, indexes, conditions."""
    pair = pair_behind(question)
    if pair is None:
        raise RuntimeError(f"no cells count by {question.by}")
    source = of_cells(question, pair)
    with planned(of_cells=True) as cursor:
        cursor.execute(
            f"EXPLAIN (COSTS OFF) {statement(source, question)}",
            source.given | {"most": question.most},
        )
        return "\n".join(line for (line,) in cursor.fetchall())


def other_plans(asked: list[Question]) -> list[str]:
    """The questions that would be planned otherwise if all cells were ten times as many.

    That is the most that ten times the events can make: each of them by values of its own.
    """
    now = [plan(question) for question in asked]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pg_class SET reltuples = reltuples * %s"
            " WHERE relname LIKE 'budgets_usagecell%%' AND reltuples > 0",
            [SCALE],
        )
        then = [plan(question) for question in asked]
        transaction.set_rollback(True)
    return [
        " × ".join(one.name for one in question.by)
        for question, before, after in zip(asked, now, then, strict=True)
        if before != after
    ]


def timed(question: Question) -> float:
    begun = time.perf_counter()
    answer = ask(question)
    took_ms = (time.perf_counter() - begun) * 1_000
    if not answer.found or answer.from_events:
        raise RuntimeError(f"no answer from cells: {question.by}")
    return took_ms


def run(given: dict[str, int]) -> dict[str, Any]:
    now = datetime.now(tz=UTC)
    begun = time.perf_counter()
    seed(slug="seed", shape=replace(SHAPES[Size.LARGE], events=given["events"]), now=now)
    seed_s = time.perf_counter() - begun
    asked = list(questions(Organization.objects.get(slug="seed").id, now.date()))
    took = {
        " × ".join(one.name for one in question.by): [
            timed(
                replace(
                    question,
                    since=question.since - timedelta(days=back),
                    until=question.until - timedelta(days=back),
                )
            )
            for back in range(given["rounds"])
        ]
        for question in asked
    }
    every = [ms for times in took.values() for ms in times]
    worst = max(took, key=lambda pair: max(took[pair]))
    return {
        "events": given["events"],
        "seed_s": seed_s,
        "cells": UsageCell.objects.filter(hours__gt=1).count(),
        "pairs": len(took),
        "asked": len(every),
        "p50_ms": median(every),
        "p95_ms": percentile(every, 0.95),
        "worst_ms": max(took[worst]),
        "worst_pair": worst,
        "other_plans": other_plans(asked),
        "token": _token(asked[0].organization_id, now),
    }


def _token(organization_id: UUID, now: datetime) -> str:
    scopes = [Scope.READ.value]
    return issue_api_token(
        organization_id=organization_id, name="benchmark", scopes=scopes, actor=ACTOR, now=now
    ).secret


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
