"""The load of `benchmarks/ingest.py`, beside a running stack.

python benchmarks/ingest_load.py < GIVEN.json > ANSWER.json
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

import django

django.setup()

import msgspec
from common import cpu_s, family
from django.db import connection, connections
from django.db.models import Sum

from budgets.domain.budgets import BudgetSpec, create_budget
from budgets.domain.prices import set_own_price
from budgets.domain.usagestore import prepare_partitions
from budgets.models import Balance, Budget, RollupWatermark, UsageEvent, UsageRollup
from controlplane.audit.domain import Actor
from controlplane.identity.domain import create_agent
from controlplane.identity.ids import new_id_text
from controlplane.identity.models import Organization
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.domain.ingest import take_usage
from enforcement.models import Sidecar
from enforcement.rules import wire
from enforcement.rules.policy import Mode, Per, Rates, ScopeKind, Unit

ACTOR = Actor.system("benchmark")
REPEATED = 10  # one of so many events is said again in the next batch
AGENTS = 20
PATIENCE_S = 120
MODELS = ("gemma-3-27b", "qwen3-32b")
RATES = Rates(input=10**6, cached_input=10**5, cache_write=10**6, output=4 * 10**6)

Batch = list[bytes]
Take = Callable[[Batch], object]


class Site:
    """Agents with a hard budget each that leases pay, and soft ones above them."""

    def __init__(self) -> None:
        owner = Organization.objects.get(slug="example")
        now = datetime.now(tz=UTC)
        common: dict[str, Any] = {"organization_id": owner.pk, "actor": ACTOR, "now": now}
        enrolled = enrol_sidecar(name="ingest", **common)
        self.organization, self.token = owner.pk, enrolled.secret
        self.sidecar = Sidecar.objects.get(pk=enrolled.sidecar.pk)
        self.agents = [create_agent(slug=f"a{n}", name=f"A {n}", **common) for n in range(AGENTS)]
        month = {"window_kind": "calendar", "period": "month"}
        soft = {"unit": Unit.USD, "limit_amount": 2**60, "mode": Mode.SOFT, **month}
        everyone = {"scope_kind": ScopeKind.ORGANIZATION, "scope_id": owner.pk}
        self.whole = self._budget("all", common, **soft, **everyone)
        self._budget("by model", common, per=Per.MODEL, **soft, **everyone)
        self.hard = [
            self._budget(
                agent.slug,
                common,
                scope_kind=ScopeKind.AGENT,
                scope_id=agent.pk,
                unit=Unit.USD,
                limit_amount=2**60,
                **month,
            )
            for agent in self.agents
        ]
        self.prices = [set_own_price(model=name, rates=RATES, **common).pk for name in MODELS]
        prepare_partitions(now=now)

    def _budget(self, name: str, common: dict[str, Any], **wish: Any) -> Budget:
        return create_budget(spec=BudgetSpec(name=f"ingest {name}", **wish), **common)


class Source:
    """Batches for one connection; each repeats some events of the one before it."""

    def __init__(self, site: Site, size: int) -> None:
        self._shapes = [_shape(site, number) for number in range(AGENTS * 2)]
        self._size = size
        self._repeated: Batch = []

    def batch(self) -> Batch:
        at_ms = time.time_ns() // 1_000_000 - 2_000
        shapes = self._shapes
        fresh = [
            shapes[n % len(shapes)] % (new_id_text().encode(), at_ms) for n in range(self._size)
        ]
        repeated, self._repeated = self._repeated, fresh[::REPEATED]
        return fresh + repeated


def _shape(site: Site, number: int) -> bytes:
    """An event of a usual chat call, to be formatted with its id and its start."""
    agent = number % AGENTS
    lease = new_id_text()
    event = wire.UsageEvent(
        id="ID",
        agent=str(site.agents[agent].pk),
        model=MODELS[number % 2],
        started_at_ms=77,
        outcome=wire.Outcome.COMPLETED,
        session=f"session-{number}",
        user=f"user-{agent}@example.org",
        provider="vllm",
        node=f"gpu-{number % 4}",
        endpoint="/v1/chat/completions",
        stream=True,
        tags={"team": "research", "environment": "live"},
        input_tokens=1_406,
        cached_input_tokens=1_024,
        output_tokens=312,
        charge_nanos=1_000,
        price_version=str(site.prices[number % 2]),
        parts=[wire.Part(str(site.hard[agent].pk), "", lease, 1_000)],
        duration_ms=4_813,
        ttft_ms=208,
        finish_reason="stop",
        upstream_id=f"chatcmpl-{lease}",
    )
    said = msgspec.json.encode(event).replace(b"%", b"%%")
    return said.replace(b'"ID"', b'"%b"').replace(b'"started_at_ms":77,', b'"started_at_ms":%d,')


# ------------------------------------------------------------------------------ three ways


def usage_of(site: Site, batch: Batch) -> wire.EncodedUsage:
    header = wire.Header(
        organization=str(site.organization),
        spool=str(site.sidecar.pk),
        epoch=1,
        incarnation="",
        policy_revision=0,
        sequence=1,
    )
    return wire.EncodedUsage(header, [msgspec.Raw(event) for event in batch])


def booking(site: Site) -> Take:
    def take(batch: Batch) -> object:
        now = datetime.now(tz=UTC)
        return take_usage(sidecar=site.sidecar, usage=usage_of(site, batch), now=now)

    return take


def bulk_create(site: Site) -> Take:
    def take(batch: Batch) -> object:
        now = datetime.now(tz=UTC)
        rows = [
            _row(site, msgspec.json.decode(event, type=wire.UsageEvent), now=now) for event in batch
        ]
        return UsageEvent.objects.bulk_create(rows, ignore_conflicts=True)

    return take


def _row(site: Site, event: wire.UsageEvent, *, now: datetime) -> UsageEvent:
    said = msgspec.structs.asdict(event)
    started = datetime.fromtimestamp(said.pop("started_at_ms") / 1000, tz=UTC)
    said["parts"] = msgspec.to_builtins(event.parts)
    said["outcome"] = event.outcome.value
    said["price_version_id"] = said.pop("price_version") or None
    said["id"], said["agent_id"] = UUID(event.id), UUID(said.pop("agent"))
    return UsageEvent(
        **said,
        organization_id=site.organization,
        sidecar=site.sidecar.pk,
        started_at=started,
        received_at=now,
    )


def over_http(site: Site) -> Take:
    address = urlsplit(os.environ["COMPTROLLER_PUBLIC_URL"])
    line = HTTPConnection(address.hostname or "", address.port, timeout=30)
    headers = {"Authorization": f"Bearer {site.token}", "Content-Type": "application/json"}

    def take(batch: Batch) -> object:
        body = msgspec.json.encode(usage_of(site, batch))
        line.request("POST", "/sidecar/v1/usage", body, headers)
        answer = line.getresponse()
        said = answer.read()
        assert answer.status == 200, said
        return said

    return take


# ------------------------------------------------------------------------------ load


def load(
    site: Site, way: Callable[[Site], Take], *, connections_: int, seconds: float, size: int
) -> dict[str, Any]:
    """Each connection in its own closed loop; new events a second, and times of batches."""
    times: list[float] = []
    deadline = time.perf_counter() + seconds

    def run(_number: int) -> int:
        source, take, done = Source(site, size), way(site), 0
        while time.perf_counter() < deadline:
            batch = source.batch()
            began = time.perf_counter()
            take(batch)
            times.append(time.perf_counter() - began)
            done += size
        connections.close_all()
        return done

    began, before = time.perf_counter(), busy_s()
    with ThreadPoolExecutor(connections_) as threads:
        done = sum(threads.map(run, range(connections_)))
    took, busy = time.perf_counter() - began, busy_s() - before
    times.sort()
    return {
        "rate": done / took,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[int(len(times) * 0.99)] * 1000,
        "cpu_us": busy / done * 1e6,
        "done": done,
    }


def busy_s() -> float:
    """CPU time of the benchmark: the parts of the stack, its database, this process."""
    return cpu_s(family(os.getppid()))


class Lag(threading.Thread):
    """Looks twice a second how old the watermark of the rollups is; keeps the worst."""

    def __init__(self) -> None:
        super().__init__()
        self.worst_s = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            for mark in RollupWatermark.objects.filter(name="usage"):
                age = datetime.now(tz=UTC) - mark.received_at
                self.worst_s = max(self.worst_s, age / timedelta(seconds=1))
        connections.close_all()


def fold_of_everything(stored: int) -> int:
    """Calls in the rollups, once they hold everything that is stored or patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        folded = int(UsageRollup.objects.aggregate(all=Sum("calls"))["all"] or 0)
        if folded == stored or time.monotonic() > deadline:
            return folded
        time.sleep(0.5)


def measure(given: dict[str, Any]) -> dict[str, Any]:
    site, count, size = Site(), given["connections"], given["batch"]
    turns: dict[str, list[dict[str, Any]]] = {}
    for _ in range(given["rounds"]):  # in turns: the machine is shared
        for way in (bulk_create, booking):
            for connections_ in (1, count):
                name = f"{way.__name__}, {connections_} connection{'s'[: connections_ > 1]}"
                found = load(
                    site, way, connections_=connections_, seconds=given["seconds"], size=size
                )
                turns.setdefault(name, []).append(found)
    lag = Lag()
    lag.start()
    posted = load(site, over_http, connections_=count, seconds=given["long"], size=size)
    turns[f"booking over HTTP, {count} connections"] = [posted]
    booked = sum(run["done"] for name, runs in turns.items() for run in runs if "booking" in name)
    plain = sum(run["done"] for name, runs in turns.items() for run in runs if "bulk" in name)
    stored = UsageEvent.objects.count() - plain  # what `bulk_create` stores, no fold hears of
    folded = fold_of_everything(stored)
    lag.over.set()
    lag.join()
    charged = Balance.objects.get(budget=site.whole).spent_amount // 1_000
    connection.close()
    return {
        "turns": turns,
        "lag_s": lag.worst_s,
        "sent": booked,
        "stored": stored,
        "folded": folded,
        "charged": charged,
    }


if __name__ == "__main__":
    json.dump(measure(json.load(sys.stdin)), sys.stdout)
