"""Fill an organization with made-up use of ninety days, to try the pages and to measure.

The use is as booked use is: every guard of the database holds, each event has its receipt, its
charge follows from its price version, and rollups are folded by the one fold there is. There are no
budgets in it, so nothing else had to be charged.

Two connections are at work, each on a week of its own: no two folds add to the same cells, and no
event is seen before it is counted.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from threading import Event, Lock
from typing import Any

from django.db import connection, transaction

from budgets.domain.prices import set_own_price
from budgets.domain.rollups import fold_rows, fold_usage
from budgets.domain.seedsql import SEED_DAY
from budgets.domain.usagestore import make_partitions
from budgets.errors import SeedError
from budgets.models import PriceVersion
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
CONNECTIONS = 2
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
    making = _Making(given, now=now, told=told)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        weeks = [pool.submit(making.week, counts) for counts in _weeks(first, shape.events)]
        try:
            for week in weeks:
                week.result()
        except BaseException:
            making.give_up()
            raise
    fold_usage(now=now)  # tells readers how far the rollups go
    with connection.cursor() as cursor:  # what has just been filled, the planner should know
        cursor.execute("ANALYZE budgets_usagecell, budgets_usagevalue, budgets_usagerollup")
    return making.made


def _weeks(first: date, events: int) -> list[dict[date, int]]:
    """How many events each day gets, by weeks as cells have them."""
    weeks: defaultdict[date, dict[date, int]] = defaultdict(dict)
    for n in range(DAYS):
        day = first + timedelta(days=n)
        count = events * (n + 1) // DAYS - events * n // DAYS
        weeks[day - timedelta(days=day.weekday())][day] = count
    return list(weeks.values())


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


class _Making:
    """Makes and folds days, each in a transaction, by several threads."""

    def __init__(
        self, given: dict[str, Any], *, now: datetime, told: Callable[[int], object]
    ) -> None:
        self.made = 0
        self._given = given | {"now": now}
        self._told = told
        self._lock = Lock()
        self._over = Event()

    def give_up(self) -> None:
        self._over.set()

    def week(self, counts: Mapping[date, int]) -> None:
        """Each of these days, on a connection of this thread."""
        try:
            for day, count in counts.items():
                if self._over.is_set():
                    return
                self._day(day, count)
                with self._lock:
                    self.made += count
                    self._told(self.made)
        finally:
            connection.close()

    @transaction.atomic
    def _day(self, day: date, count: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL jit = off")
            cursor.execute("SET LOCAL synchronous_commit = off")  # a lost seed is made again
            cursor.execute(SEED_DAY, self._given | {"day": _midnight(day), "count": count})
            fold_rows([row for (row,) in cursor.fetchall()])
