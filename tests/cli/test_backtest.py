"""`comptroller backtest`: a recording, proposed budgets, and exact figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from controlplane.cli.main import app

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2026-11-16 18:00:00.0000000,1000,100
2026-11-16 18:00:10.0000000,1000,100
2026-11-16 18:00:20.0000000,1000,100
2026-11-16 18:01:00.0000000,1000,100
"""
PRICES = [{"model": "model", "input": "1.00", "output": "10.00"}]  # $0.002 a call


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    return file


def proposal(tmp_path: Path, *budgets: dict[str, Any]) -> Path:
    file = tmp_path / "budgets.json"
    file.write_text(json.dumps({"budgets": budgets, "prices": PRICES}))
    return file


def backtest(trace: Path, budgets: Path) -> Result:
    return CliRunner().invoke(app, ["backtest", str(trace), "--budgets", str(budgets), "--json"])


def test_a_dollar_budget_cuts_then_refuses(trace: Path, tmp_path: Path) -> None:
    day = {"name": "day", "unit": "usd", "limit": "0.0055", "window": "day"}

    answer = json.loads(backtest(trace, proposal(tmp_path, day)).stdout)

    assert answer["total"] == {
        "calls": 4,
        "throttled": 0,
        "cut": 1,  # $0.0015 are left: the prompt and 50 tokens
        "refused": 1,
        "charge_usd": "0.008",
        "saved_usd": "0.0025",
    }
    (balance,) = answer["balances"]
    assert (balance["spent"], balance["wanted"]) == ("0.0055", "0.008")
    assert balance["first_at"] == "2026-11-16T18:00:20+00:00"


def test_a_minute_budget_throttles_until_its_window_ends(trace: Path, tmp_path: Path) -> None:
    minute = {"name": "minute", "unit": "requests", "limit": 2, "window": "minute"}

    answer = json.loads(backtest(trace, proposal(tmp_path, minute)).stdout)

    assert answer["total"]["throttled"] == 1
    assert answer["total"]["refused"] == 0
    assert [row["spent"] for row in answer["balances"]] == [2, 2]


def test_a_soft_budget_only_counts(trace: Path, tmp_path: Path) -> None:
    soft = {"name": "soft", "unit": "tokens", "limit": 2_000, "mode": "soft"}

    answer = json.loads(backtest(trace, proposal(tmp_path, soft)).stdout)

    assert (answer["total"]["refused"], answer["total"]["saved_usd"]) == (0, "0.00")
    assert [(row["spent"], row["above"]) for row in answer["balances"]] == [(4_400, 3)]


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ([], "it proposes no budget"),
        ([{"name": "a", "unit": "usd", "limit": "1", "colour": "red"}], "colour"),
        ([{"name": "a", "unit": "usd", "limit": "-1"}], "budget 'a'"),
        ([{"name": "a", "unit": "tokens", "limit": 1, "window": "fortnight"}], "fortnight"),
        ([{"name": "a", "unit": "tokens", "limit": 1}] * 2, "two budgets are named 'a'"),
        ([{"name": "a", "unit": "tokens", "limit": 1, "scope": "planet:x"}], "planet:x"),
    ],
)
def test_a_proposal_that_means_nothing_is_a_sentence(
    trace: Path, tmp_path: Path, budgets: list[dict[str, Any]], said: str
) -> None:
    answer = backtest(trace, proposal(tmp_path, *budgets))

    assert answer.exit_code == 2
    assert said in answer.output


def test_a_trace_without_its_columns_is_a_sentence(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("when,what\n1,2\n")
    budget = {"name": "a", "unit": "tokens", "limit": 1}

    answer = backtest(trace, proposal(tmp_path, budget))

    assert answer.exit_code == 2
    assert "Traceback" not in answer.output
