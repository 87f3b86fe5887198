"""`comptroller backtest`: recorded calls against proposed budgets, without a control plane."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from controlplane.cli.output import Exit, Format, Output
from enforcement.rules.backtest import BacktestError, Counts, Episode, Report, replay
from enforcement.rules.money import usd_text
from enforcement.rules.policy import BudgetPolicy, Unit
from enforcement.rules.traces import read_calls, read_proposal


def run(trace: Path, budgets: Path, output: Output, *, agent: str, model: str) -> Exit:
    """Replay and tell. A file that cannot be replayed is one sentence and a usage error."""
    try:
        policies, prices = read_proposal(_proposed(budgets))
        calls = list(read_calls(_lines(trace), agent=agent, model=model))
        report = replay(calls, policies, prices=prices)
    except BacktestError as error:
        output.error(str(error))
        return Exit.USAGE
    units = {policy.id: policy.unit for policy in policies}
    if output.format is Format.JSON:
        output.result(as_data(report, units))
    else:
        _tell(report, policies, units, output)
    return Exit.OK


def as_data(report: Report, units: dict[str, Unit]) -> dict[str, Any]:
    """The report as plain data: amounts in dollars are decimal text."""
    return {
        "first_at": _instant(report.first_at),
        "last_at": _instant(report.last_at),
        "total": _counts(report.total),
        "agents": {name: _counts(counts) for name, counts in sorted(report.agents.items())},
        "balances": [_balance(episode, units[episode.budget]) for episode in report.episodes],
    }


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        "calls": counts.calls,
        "throttled": counts.throttled,
        "cut": counts.cut,
        "refused": counts.refused,
        "charge_usd": usd_text(counts.charge),
        "saved_usd": usd_text(counts.saved),
    }


def _balance(episode: Episode, unit: Unit) -> dict[str, Any]:
    return {
        "budget": episode.budget,
        "value": episode.value,
        "window_start": _instant(episode.window_start),
        "window_end": _instant(episode.window_end),
        "unit": unit.value,
        "limit": _amount(unit, episode.limit),
        "wanted": _amount(unit, episode.wanted),
        "spent": _amount(unit, episode.spent),
        "above": episode.above,
        "throttled": episode.throttled,
        "cut": episode.cut,
        "refused": episode.refused,
        "first_at": _instant(episode.first_at),
    }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _amount(unit: Unit, amount: int) -> str | int:
    return usd_text(amount) if unit is Unit.USD else amount


@dataclass
class _Sum:
    """What the balances of one budget stopped, together."""

    balances: int = 0
    throttled: int = 0
    cut: int = 0
    refused: int = 0
    above: int = 0
    first_at: str = ""


def _tell(
    report: Report, policies: Sequence[BudgetPolicy], units: dict[str, Unit], output: Output
) -> None:
    sums = {policy.id: _Sum() for policy in policies}
    for episode in report.episodes:
        found = sums[episode.budget]
        found.balances += 1
        for name in ("throttled", "cut", "refused", "above"):
            setattr(found, name, getattr(found, name) + getattr(episode, name))
        if episode.first_at is not None:
            at = episode.first_at.isoformat(timespec="seconds")
            found.first_at = min(found.first_at or at, at)
    output.table(
        ["budget", "unit", "limit", *_Sum.__annotations__],
        [
            [p.name, p.unit.value, _amount(units[p.id], p.limit), *vars(sums[p.id]).values()]
            for p in policies
        ],
    )
    output.text()
    output.table(
        ["agent", "calls", "throttled", "cut", "refused", "charge_usd", "saved_usd"],
        [[name, *_counts(counts).values()] for name, counts in sorted(report.agents.items())],
    )
    output.text()
    output.result(_counts(report.total))


def _lines(trace: Path) -> list[str]:
    return (sys.stdin.read() if str(trace) == "-" else _text(trace)).splitlines(keepends=True)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BacktestError(f"{file} cannot be read: {error}") from error


def _proposed(file: Path) -> Any:
    text = _text(file)
    if file.suffix.lower() not in (".yaml", ".yml"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise BacktestError(f"{file} is not JSON: {error}") from error
    try:
        import yaml
    except ImportError as error:
        raise BacktestError("YAML needs the extra `server`; write the budgets as JSON") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BacktestError(f"{file} is not YAML: {error}") from error
