"""The report of a replay as plain data, for files and the API."""

from datetime import datetime
from typing import Any

from enforcement.rules.backtest import Counts, Episode, Report
from enforcement.rules.money import usd_text
from enforcement.rules.policy import Unit


def as_data(report: Report, units: dict[str, Unit]) -> dict[str, Any]:
    """The report as plain data: amounts in dollars are decimal text."""
    return {
        "first_at": _instant(report.first_at),
        "last_at": _instant(report.last_at),
        "total": counts_data(report.total),
        "agents": {name: counts_data(counts) for name, counts in sorted(report.agents.items())},
        "balances": [_balance(episode, units[episode.budget]) for episode in report.episodes],
    }


def counts_data(counts: Counts) -> dict[str, Any]:
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
        "limit": amount_data(unit, episode.limit),
        "wanted": amount_data(unit, episode.wanted),
        "spent": amount_data(unit, episode.spent),
        "above": episode.above,
        "throttled": episode.throttled,
        "cut": episode.cut,
        "refused": episode.refused,
        "first_at": _instant(episode.first_at),
    }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def amount_data(unit: Unit, amount: int) -> str | int:
    return usd_text(amount) if unit is Unit.USD else amount
