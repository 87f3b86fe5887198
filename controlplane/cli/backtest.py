"""`comptroller backtest`: recorded calls against proposed budgets, without a control plane."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.cli.output import Exit, Format, Output
from enforcement.rules.backtest import BacktestError, Report, replay
from enforcement.rules.policy import BudgetPolicy, Unit
from enforcement.rules.replaydata import amount_data, as_data, counts_data
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
            [p.name, p.unit.value, amount_data(units[p.id], p.limit), *vars(sums[p.id]).values()]
            for p in policies
        ],
    )
    output.text()
    output.table(
        ["agent", "calls", "throttled", "cut", "refused", "charge_usd", "saved_usd"],
        [[name, *counts_data(counts).values()] for name, counts in sorted(report.agents.items())],
    )
    output.text()
    output.result(counts_data(report.total))


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
