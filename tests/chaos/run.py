"""One run: the stack, the storm, the healing, the account."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from openai import AsyncOpenAI

from benchmarks.common import engine, get_json, scene, stack
from tests.chaos.agents import OUTPUT_TOKENS, Agent
from tests.chaos.database import Database
from tests.chaos.disk import SmallDisk
from tests.chaos.faults import DISK_FAULTS, FAULTS, Scene
from tests.chaos.fleet import Sidecar, new_home

RATES = {"input": 100_000_000, "cached_input": 100_000_000, "cache_write": 100_000_000}
RATES |= {"output": 400_000_000}
TOKENS_PER_S = 150
CALLERS = 6
SHARE = 0.6  # of what the agents could use if nothing broke: so that the caps are reached
DATABASE_MB = 400
HEAL_S = 60
MODELS = ("alpha", "beta")


@dataclass(frozen=True)
class Wishes:
    seconds: float
    seed: int
    every_s: float = 1.5
    only: str = ""  # faults whose name has this


@dataclass
class Report:
    """What happened, and what must be true."""

    wishes: Wishes
    faults: Counter[str] = field(default_factory=Counter)
    seen: dict[str, Counter[str]] = field(default_factory=dict)
    accounts: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    claims: list[tuple[str, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(true for _, true in self.claims)

    def claim(self, words: str, *, true: bool) -> None:
        self.claims.append((words, true))

    def print(self) -> None:
        print(f"seed {self.wishes.seed}, {self.wishes.seconds:.0f} s")
        for name, times in sorted(self.faults.items()):
            print(f"  {times:3d} × {name}")
        for agent, seen in self.seen.items():
            print(f"{agent}: " + ", ".join(f"{n} {what}" for what, n in sorted(seen.items())))
        for note in self.notes:
            print(note)
        print(f"{'budget':10} {'cap n$':>14} {'made n$':>14} {'spent n$':>14} {'overrun n$':>11}")
        for name, cap, made, spent, overrun in self.accounts:
            print(f"{name:10} {cap:14,} {made:14,} {spent:14,} {overrun:11,}")
        for words, true in self.claims:
            print(f"{'holds ' if true else 'BROKEN'}  {words}")


def cost(truth: dict[str, int]) -> int:
    """What was made, in nano-dollars, rounded up once."""
    made = truth["prompt_tokens"] * RATES["input"] + truth["output_tokens"] * RATES["output"]
    return -(-made // 1_000_000)


class Engines:
    """An engine for each agent: what it made is what the agent used."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.urls = urls

    def made(self, model: str) -> int:
        return cost(get_json(f"{self.urls[model]}/truth"))


@contextlib.contextmanager
def engines() -> Iterator[Engines]:
    with contextlib.ExitStack() as open_ones:
        flags = ("--rate", str(TOKENS_PER_S), "--abort-tokens", "1")
        yield Engines({m: open_ones.enter_context(engine("--model", m, *flags)) for m in MODELS})


@contextlib.asynccontextmanager
async def fleet(running: Any, home: Path, upstreams: list[str]) -> AsyncIterator[list[Sidecar]]:
    made: list[Sidecar] = []
    try:
        for name in ("east", "west"):
            token = (await scene(running, "sidecar", name=name))["token"]
            web_port = int(running.installation.web_url.rsplit(":", 1)[1])
            made.append(Sidecar(name, token=token, port=_free_port(), web_port=web_port, home=home))
            await made[-1].start(upstreams)
        yield made
    finally:
        for sidecar in made:
            await sidecar.stop()


async def run(wishes: Wishes) -> Report:
    """Raises when the stack itself cannot be started."""
    report = Report(wishes)
    home = new_home()
    database_disk = SmallDisk(home / "database", megabytes=DATABASE_MB)
    try:
        with engines() as made:
            database = Database(database_disk.place)
            await database.start()
            try:
                await _in_the_stack(report, database, database_disk, made)
            finally:
                await database.stop()
    finally:
        database_disk.remove()
    return report


async def _in_the_stack(report: Report, database: Database, disk: SmallDisk, made: Engines) -> None:
    home = disk.place.parent
    async with stack(DATABASE_URL=database.cluster.url) as running:
        upstreams = [f"{model}={url}" for model, url in made.urls.items()]
        async with fleet(running, home, upstreams) as sidecars:
            random = Random(report.wishes.seed)
            place = Scene(random, running, sidecars, database, disk)
            await _storm_and_account(report, place, made)


async def _storm_and_account(report: Report, place: Scene, made: Engines) -> None:
    caps = _caps(report.wishes)
    budgets = await scene(place.running, "agent", slug="fleet", budgets=[caps["all"]])
    agents: dict[str, Any] = {}
    for model in MODELS:
        agents[model] = await scene(
            place.running, "agent", slug=model, prices={model: RATES}, budgets=[caps[model]]
        )
    acting = [Agent(m, key=agents[m]["key"], model=m) for m in MODELS]
    await _storm(report, place, acting)
    report.seen = {agent.name: agent.seen for agent in acting}
    for sidecar in place.sidecars:  # as at a deploy: finals at once, not after a minute's idling
        sidecar.signal(signal.SIGTERM)
    ledgers = {m: await _ledger(place, agents[m]) for m in MODELS}
    ledgers["all"] = await _ledger(place, budgets)
    _check(report, ledgers, {m: made.made(m) for m in MODELS}, caps)
    for model in MODELS:
        spent, charged = ledgers[model]["spent"], ledgers[model]["charged"]
        report.notes.append(f"{model}: usage events say {charged:,} of {spent:,}")
    verified = await scene(place.running, "verify")
    report.claim(f"the journal explains {verified['balances']} balances", true=verified["holds"])
    await _check_history(report, place)
    await _check_liveness(report, place)


def _caps(wishes: Wishes) -> dict[str, dict[str, Any]]:
    fastest = CALLERS * TOKENS_PER_S * RATES["output"] // 1_000_000
    each = int(fastest * wishes.seconds * SHARE)
    common = {"unit": "usd", "hold_mode": "strict"}
    caps: dict[str, dict[str, Any]] = {
        model: common | {"name": "cap", "limit": each} for model in MODELS
    }
    caps["all"] = common | {"name": "all", "scope": "organization", "limit": each * 17 // 10}
    return caps


async def _storm(report: Report, place: Scene, agents: list[Agent]) -> None:
    over = asyncio.Event()
    urls = [sidecar.url for sidecar in place.sidecars]
    streaming = [asyncio.create_task(agent.stream(urls, CALLERS, over)) for agent in agents]
    known = FAULTS | (DISK_FAULTS if place.database_disk.mounted else {})
    known = {name: fault for name, fault in known.items() if report.wishes.only in name}
    order = _order(list(known), place.random)
    deadline = asyncio.get_running_loop().time() + report.wishes.seconds
    while asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(place.random.uniform(0.3, 2) * report.wishes.every_s)
        name = next(order)
        report.faults[name] += 1
        print(f"  {name}", file=sys.stderr)
        await known[name](place)
    over.set()
    await asyncio.wait_for(asyncio.gather(*streaming), HEAL_S)


def _order(names: list[str], random: Random) -> Iterator[str]:
    """Every fault once before any comes again."""
    while True:
        random.shuffle(names)
        yield from names


async def _ledger(place: Scene, agent: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(HEAL_S * 2):
        while True:
            with contextlib.suppress(RuntimeError):  # the database may still be starting
                return await scene(
                    place.running, "ledger", budget=agent["budgets"][0], agent=agent["agent"]
                )
            await asyncio.sleep(1)


def _check(
    report: Report,
    ledgers: dict[str, dict[str, Any]],
    made: dict[str, int],
    caps: dict[str, dict[str, Any]],
) -> None:
    made = {**made, "all": sum(made.values())}
    for name, ledger in ledgers.items():
        cap = caps[name]["limit"]
        report.accounts.append((name, cap, made[name], ledger["spent"], ledger["overrun"]))
        report.claim(f"{name}: made {made[name]:,} ≤ cap {cap:,}", true=made[name] <= cap)
        report.claim(
            f"{name}: the ledger has all that was made",
            true=made[name] <= ledger["spent"] + ledger["overrun"],
        )
        report.claim(
            f"{name}: nothing is held or in suspense any more",
            true=ledger["settled"] and ledger["held"] == ledger["suspense"] == 0,
        )
        report.claim(f"{name}: no overrun", true=ledger["overrun"] == 0)


async def _check_history(report: Report, place: Scene) -> None:
    """The ledger knows which database it is in, and all that the one before had leased."""
    history = await scene(place.running, "history")
    report.notes.append(
        f"failovers: {place.failovers}, incarnations of the ledger: {history['incarnations']},"
        f" leases lost: {place.leases_lost}, adopted: {history['adopted']}"
    )
    report.claim(
        f"the ledger's incarnation is that of timeline {history['timeline']}",
        true=history["noticed"] and int(history["timeline"], 16) == 1 + place.failovers,
    )
    report.claim("every spool has told its leases", true=not history["learning"])


async def _check_liveness(report: Report, place: Scene) -> None:
    """Each sidecar answers a new agent that has room, soon after everything healed."""
    cap = {"name": "room", "unit": "usd", "limit": 10**9, "hold_mode": "strict"}
    new = await scene(place.running, "agent", slug="late", budgets=[cap])
    await scene(place.running, "raise", budget_name="fleet all", by=10**9)
    agent = Agent("late", key=new["key"], model=MODELS[0])
    for sidecar in place.sidecars:
        async with AsyncOpenAI(
            base_url=f"{sidecar.url}/v1", api_key=new["key"], max_retries=0, timeout=20
        ) as client:
            for _ in range(20):
                outcome = await agent.once(client, "late")
                if outcome == "finished":
                    break
                await asyncio.sleep(0.5)
        report.claim(
            f"{sidecar.name}: {OUTPUT_TOKENS} tokens for an agent with room: {outcome}",
            true=outcome == "finished",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
