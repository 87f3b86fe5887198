"""Fill an organization with made-up use of ninety days, to try the pages and to measure.

The use is as booked use is: every guard of the database holds, each event has its receipt, its
charge follows from its price version, and rollups are folded by the one fold there is. There are no
budgets in it, so nothing else had to be charged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from threading import Event, Thread
from typing import Any

from django.db import connection, transaction

from budgets.domain.prices import set_own_price
from budgets.domain.rollups import fold_usage
from budgets.domain.seedsql import SEED_DAY
from budgets.domain.usagestore import make_partitions
from budgets.errors import SeedError
from budgets.models import PriceVersion, UnfoldedUse
from controlplane.audit.domain import Actor
from controlplane.identity.domain import (
    create_agent,
    create_organization,
    create_project,
    create_team,
)
from controlplane.identity.models import Agent, Organization
from enforcement.rules.policy import Rates

DAYS = 90
ACTOR = Actor.system("seed")
MODELS = 16
PROVIDERS = ("openai", "anthropic", "mistral", "self-hosted")
NANOS_PER_STEP = 100_000_000  # a model costs a step more per million tokens than the one before


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class Shape:
    """How much of everything."""

    events: int
    agents: int
    projects: int
    teams: int


SHAPES = {
    Size.SMALL: Shape(events=18_000, agents=20, projects=6, teams=3),
    Size.LARGE: Shape(events=10_000_000, agents=500, projects=40, teams=8),
}


def seed(
    *,
    slug: str,
    shape: Shape,
    now: datetime,
    told: Callable[[int], object] = lambda _events: None,
) -> int:
    """Make the organization `slug` and its use until yesterday. How many events it has.

    `told` is called after each day with the number so far.

    Raises:
        SeedError: there is an organization of that name.
    """
    if Organization.objects.filter(slug=slug).exists():
        raise SeedError(f"there is an organization {slug!r} already: name another one")
    first = now.astimezone(UTC).date() - timedelta(days=DAYS)
    given = _world(slug, shape, begin=_midnight(first))
    make_partitions(first + timedelta(days=day) for day in range(DAYS))
    made = 0
    with _Folding(now):
        for day in range(DAYS):
            count = shape.events * (day + 1) // DAYS - made
            _seed_day(given, first + timedelta(days=day), count, now=now)
            made += count
            told(made)
    with connection.cursor() as cursor:  # what has just been filled, the planner should know
        cursor.execute("ANALYZE budgets_usagecell, budgets_usagevalue, budgets_usagerollup")
    return made


@transaction.atomic
def _world(slug: str, shape: Shape, *, begin: datetime) -> dict[str, Any]:
    """The organization with its owners and prices, as parameters of `SEED_DAY`."""
    name = f"Seeded: {slug}"
    organization = create_organization(slug=slug, name=name, actor=ACTOR, now=begin)
    scope: dict[str, Any] = {"organization_id": organization.id, "actor": ACTOR, "now": begin}
    teams = [create_team(slug=f"team-{n}", name=f"Team {n}", **scope) for n in range(shape.teams)]
    projects = [
        create_project(
            slug=f"project-{n}", name=f"Project {n}", team_id=teams[n % len(teams)].id, **scope
        )
        for n in range(shape.projects)
    ]
    agents = [
        create_agent(
            slug=f"agent-{n}", name=f"Agent {n}", project_id=projects[n % len(projects)].id, **scope
        )
        for n in range(shape.agents)
    ]
    prices = [
        set_own_price(
            model=f"model-{n}", provider=PROVIDERS[n % len(PROVIDERS)], rates=_rates(n), **scope
        )
        for n in range(MODELS)
    ]
    return {
        "organization": organization.id,
        "slug": slug,
        **_of_agents(agents, {project.id: project.team_id for project in projects}),
        **_of_prices(prices),
    }


def _rates(number: int) -> Rates:
    step = (number + 1) * NANOS_PER_STEP
    return Rates(input=step, cached_input=step // 10, cache_write=step, output=4 * step)


def _of_agents(agents: list[Agent], team_of: dict[Any, Any]) -> dict[str, Any]:
    return {
        "agents": [agent.id for agent in agents],
        "teams": [team_of[agent.project_id] for agent in agents],
        "projects": [agent.project_id for agent in agents],
    }


def _of_prices(prices: list[PriceVersion]) -> dict[str, Any]:
    rates = [_rates(number) for number in range(len(prices))]
    return {
        "models": [price.model for price in prices],
        "providers": [price.provider for price in prices],
        "prices": [price.id for price in prices],
        "inputs": [rate.input for rate in rates],
        "cached": [rate.cached_input for rate in rates],
        "outputs": [rate.output for rate in rates],
    }


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _seed_day(given: dict[str, Any], day: date, count: int, *, now: datetime) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL jit = off")
        cursor.execute("SET LOCAL synchronous_commit = off")  # a lost seed is made again
        cursor.execute(SEED_DAY, given | {"day": _midnight(day), "count": count, "now": now})


class _Folding:
    """Folds beside the making of events, on a connection of its own, and to the end at the end."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._over = Event()
        self._thread = Thread(target=self._fold, name="fold")
        self._failure: Exception | None = None

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _fold(self) -> None:
        try:
            over = False
            while not over:
                over = self._over.wait(timeout=0.5) and not UnfoldedUse.objects.exists()
                fold_usage(now=self._now)
        except Exception as error:  # noqa: BLE001 -- raised where the thread is joined
            self._failure = error
        finally:
            connection.close()
