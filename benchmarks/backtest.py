"""Replaying a recording against many proposed budgets.

    python benchmarks/backtest.py [--check] [--json FILE] [--trace FILE] [--budgets 50] [--rounds 3]

Without `--trace`: 19,366 calls in an hour, made from a seed, of the shape of a public trace of
conversations (a thousand prompt tokens in the median, two hundred of output). With it: any CSV that
`comptroller backtest` reads. Reading the file is part of what is timed. Medians.
"""

import io
import random
import statistics
import time
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common import Result, arguments, conclude

from enforcement.rules.backtest import Report, replay
from enforcement.rules.traces import read_calls, read_proposal

CALLS = 19_366
MOST_S = 5.0
PRICES = [{"model": "model", "input": "2.50", "output": "10.00"}]
WINDOWS = (("minute", 1), ("hour", 40), ("day", 45), ("month", 50), ("lifetime", 60))
UNITS = (("usd", 2), ("tokens", 700_000), ("requests", 350), ("output_tokens", 90_000))


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--budgets", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)


def made() -> str:
    """A CSV of calls from a seed: eight agents, log-normal sizes, a burst now and then."""
    chance = random.Random(20_231_116)
    at = datetime(2026, 11, 16, 18, 0, tzinfo=UTC)
    lines = ["at,agent,user,input_tokens,output_tokens"]
    for _ in range(CALLS):
        at += timedelta(seconds=chance.expovariate(CALLS / 3_600))
        tokens = int(chance.lognormvariate(6.93, 0.9)), int(chance.lognormvariate(5.3, 0.6))
        agent, user = chance.randrange(8), chance.randrange(200)
        lines.append(f"{at.isoformat()},agent-{agent},user-{user},{tokens[0] + 1},{tokens[1] + 1}")
    return "\n".join(lines) + "\n"


def proposed(count: int) -> dict[str, object]:
    """Budgets of every window and unit; a third split by agent or user, some filtered."""
    budgets = []
    for number in range(count):
        unit, limit = UNITS[number % len(UNITS)]
        window, times = WINDOWS[number % len(WINDOWS)]
        budget = {
            "name": f"budget {number}",
            "unit": unit,
            "limit": str(limit * times),
            "window": window,
            "mode": "soft" if number % 7 == 0 else "hard",
        }
        if number % 3 == 0:
            budget["per"] = "user" if number % 2 else "agent"
        if number % 5 == 0:
            budget["filters"] = {"user": [f"user-{number % 20}*"]}
        budgets.append(budget)
    return {"budgets": budgets, "prices": PRICES}


def once(text: str, proposal: dict[str, object]) -> tuple[Report, float]:
    begun = time.perf_counter()
    budgets, prices = read_proposal(proposal)
    report = replay(read_calls(io.StringIO(text)), budgets, prices=prices)
    return report, time.perf_counter() - begun


if __name__ == "__main__":
    asked = arguments(__doc__, more=_more)
    text = asked.trace.read_text(encoding="utf-8-sig") if asked.trace else made()
    runs = [once(text, proposed(asked.budgets)) for _ in range(asked.rounds)]
    total, took = runs[0][0].total, statistics.median(seconds for _, seconds in runs)
    result = Result(
        f"{total.calls:,} calls over {asked.budgets} budgets",
        ["throttled", "cut", "refused", "balances", "seconds"],
    )
    counts = (total.throttled, total.cut, total.refused, len(runs[0][0].episodes))
    result.rows.append([*(f"{count:,}" for count in counts), f"{took:.2f}"])
    result.goal(f"{took:.2f} s (≤ {MOST_S})", met=took <= MOST_S)
    conclude([result], asked)
