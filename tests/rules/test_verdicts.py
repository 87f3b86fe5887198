"""Refusals: which status, which words."""

import pytest

from enforcement.rules.policy import BudgetPolicy, ScopeKind, Unit
from enforcement.rules.verdicts import (
    Clamped,
    Cut,
    Refuse,
    clamp_note,
    cut_note,
    instant_text,
    is_hopeless,
    judge_denial,
    refusal_body,
    throttled,
)
from enforcement.rules.wire import Denial, DenialCause

RAISE = "https://control.example/budgets/b-1/changes/new/"
BUDGET = BudgetPolicy("b-1", "month", ScopeKind.TEAM, "t", Unit.USD, 1_000, increase_url=RAISE)


def denial(cause: DenialCause, **fields: int) -> Denial:
    return Denial("group", "b-1", "", cause, **({"limit": 1_000} | fields))


@pytest.mark.parametrize(
    ("said", "status", "hopeless"),
    [
        (denial(DenialCause.LIMIT, spent=995), 402, True),
        (denial(DenialCause.LIMIT, spent=990), 429, False),
        (denial(DenialCause.LIMIT, spent=900, suspense=95), 402, True),
        (denial(DenialCause.LIMIT, spent=900, overrun=200), 402, True),
        (denial(DenialCause.HELD, spent=500, held=500), 429, False),
        (denial(DenialCause.SUSPENSE, spent=500, suspense=400), 429, False),
        (denial(DenialCause.ARMING), 429, False),
        (denial(DenialCause.LEARNING), 503, False),
        (denial(DenialCause.STALE_POLICY), 503, False),
        (denial(DenialCause.MISMATCH), 403, True),
        (denial(DenialCause.MAX_VALUES), 403, True),
    ],
)
def test_a_denial_is_judged(said: Denial, status: int, hopeless: bool) -> None:
    refusal = judge_denial(said, BUDGET, floor=10)
    assert refusal.status == status
    assert is_hopeless(said, floor=10) == hopeless
    assert (refusal.retry_after_s > 0) == (status in (429, 503))
    assert refusal.retry_after_s <= 5


def test_a_refusal_explains_itself() -> None:
    said = denial(DenialCause.LIMIT, spent=1_000, held=5)
    refusal = judge_denial(said, BUDGET, floor=10)
    assert refusal_body(refusal, request_id="r-1") == {
        "error": {
            "message": "Budget 'month' is exhausted",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
            "param": None,
            "request_id": "r-1",
            "reason": "budget_exhausted",
            "budget": "month",
            "budget_id": "b-1",
            "scope": "team",
            "unit": "usd",
            "limit": "0.000001",
            "spent": "0.000001",
            "held": "0.000000005",
            "window_ends_at": None,
            "request_increase_url": RAISE,
        }
    }


def test_a_plain_refusal_names_no_budget() -> None:
    body = refusal_body(Refuse(400, "invalid_request_error", "No", param="n"), request_id="r")
    assert set(body["error"]) == {"message", "type", "code", "param", "request_id"}


@pytest.mark.parametrize(("wait_s", "said_s"), [(0.2, 1), (3.1, 4), (500, 60)])
def test_a_throttle_asks_for_patience_within_reason(wait_s: float, said_s: int) -> None:
    refusal = throttled(retry_in_ns=int(wait_s * 1e9), what="requests_per_minute")
    assert (refusal.status, refusal.retry_after_s) == (429, said_s)
    assert refusal.message == "The agent's limit of requests per minute is reached"


def test_notes_inside_answers() -> None:
    cut = cut_note(Cut("budget_exhausted", "Over", budget=BUDGET), request_id="r", output_tokens=9)
    assert (cut["outcome"], cut["budget"], cut["output_tokens"]) == ("cut", "month", 9)
    killed = cut_note(Cut("agent_killed", "Stop", order="o-1"), request_id="r", output_tokens=0)
    assert (killed["order"], "budget" in killed) == ("o-1", False)
    clamped = clamp_note(Clamped(50, BUDGET), request_id="r")
    assert (clamped["outcome"], clamped["max_output_tokens"]) == ("clamped", 50)


def test_instants_are_rfc_3339() -> None:
    assert instant_text(1_790_000_000_123) == "2026-09-21T14:13:20.123000Z"
    assert instant_text(None) is None
