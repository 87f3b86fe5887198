"""Verdicts on a request as values, and what a caller reads of them.

Rules of this file:

1. 402 only if what is spent for good leaves no room for the least useful answer; if only other
   requests' holds stand in the way, waiting helps: 429 with `Retry-After` (design §5).
2. 429 never asks for more than a minute's patience.
3. 402 and 403 tell clients not to retry.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from enforcement.rules.money import usd_text
from enforcement.rules.policy import AgentState, BudgetPolicy, Measure, Unit
from enforcement.rules.thresholds import ActionKind
from enforcement.rules.wire import Denial, DenialCause

MAX_RETRY_AFTER_S = 60
_STOPPED = (AgentState.PAUSED, AgentState.KILLED)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

QUOTA = "insufficient_quota"
RATE = "rate_limit_exceeded"
PERMISSION = "permission_denied"
UNAVAILABLE = "service_unavailable"
INVALID = "invalid_request_error"
UPSTREAM = "upstream_error"

_TEMPORARY = {
    DenialCause.ARMING: "the budget is being armed",
    DenialCause.LEARNING: "the ledger is recovering",
    DenialCause.STALE_POLICY: "the policy is being refreshed",
    DenialCause.SUSPENSE: "earlier use of the budget is not accounted for yet",
    DenialCause.HELD: "other requests hold what is left of the budget",
}

_FINAL = {
    DenialCause.MAX_VALUES: "has no room for another value of its split",
    DenialCause.MISMATCH: "does not cover this request",
}
_OVER = (*_FINAL, DenialCause.ENDED)
_MONEY = (DenialCause.LIMIT, DenialCause.HELD, DenialCause.SUSPENSE)


class Refuse(Struct, frozen=True):
    """The request is not forwarded. `type` and `code` speak OpenAI's dialect, `reason` ours."""

    status: int
    type: str
    message: str
    code: str = ""
    reason: str = ""
    param: str = ""
    retry_after_s: int = 0
    budget: BudgetPolicy | None = None
    limit: int = 0
    spent: int = 0
    held: int = 0
    window_ends_at_ms: int | None = None

    @property
    def key(self) -> str:
        """A stable name for metrics and counts."""
        return self.reason or self.code or self.type


class Cut(Struct, frozen=True):
    """A running request ends here. `reason` is a budget's, an order's or our own."""

    reason: str
    message: str
    budget: BudgetPolicy | None = None
    order: str = ""
    hand_back_tokens: int = 0  # output of one more call, to save the work with


class Clamped(Struct, frozen=True):
    """The output limit was lowered to what the control plane granted."""

    output_limit: int
    budget: BudgetPolicy | None


def is_spent(denial: Denial, *, floor: int) -> bool:
    """Whether the balance can never again pay for the least useful answer of this window."""
    return denial.spent + denial.suspense + denial.overrun + floor > denial.limit


def is_hopeless(denial: Denial, *, floor: int) -> bool:
    """Whether waiting cannot help: spent for good, or never meant for this request."""
    return denial.cause in _OVER or (denial.cause in _MONEY and is_spent(denial, floor=floor))


def judge_denial(denial: Denial, budget: BudgetPolicy | None, *, floor: int) -> Refuse:
    """The refusal that a denied group leads to, once its time is up."""
    name = f"Budget {budget.name if budget else denial.budget!r}"
    if denial.cause in _FINAL:
        return _refuse(403, PERMISSION, f"{name} {_FINAL[denial.cause]}", denial, budget)
    if denial.cause is DenialCause.ENDED:
        return _refuse(402, QUOTA, f"{name} has ended", denial, budget)
    if denial.cause in _MONEY and is_spent(denial, floor=floor):
        return _refuse(402, QUOTA, f"{name} is exhausted", denial, budget)
    why = _TEMPORARY.get(denial.cause, _TEMPORARY[DenialCause.HELD])
    if denial.cause in (DenialCause.LEARNING, DenialCause.STALE_POLICY):
        return _refuse(503, UNAVAILABLE, f"{name}: {why}", denial, budget)
    return _refuse(429, RATE, f"{name}: {why}", denial, budget)


def _refuse(
    status: int, kind: str, message: str, denial: Denial, budget: BudgetPolicy | None
) -> Refuse:
    retry_after_s = 0
    if status in (429, 503):
        retry_after_s = min(max(-(-denial.retry_after_ms // 1000), 1), 5)
    return Refuse(
        status=status,
        type=kind,
        message=message,
        reason=f"budget_{denial.cause}" if status != 402 else "budget_exhausted",
        retry_after_s=retry_after_s,
        budget=budget,
        limit=denial.limit,
        spent=denial.spent,
        held=denial.held,
        window_ends_at_ms=denial.window_ends_at_ms,
    )


def state_refusal(state: AgentState, *, who: str = "agent") -> Refuse | None:
    """What a paused or killed agent (or session) is told; None for one that may call."""
    if state not in _STOPPED:
        return None
    reason, message = f"{who}_{state.value}", f"This {who} is {state.value}"
    return Refuse(403, PERMISSION, message, code=reason, reason=reason)


def measure_refusal(measure: Measure, budget: BudgetPolicy) -> Refuse:
    """What a new call is told whose budget has reached a threshold that stops calls."""
    message = f"Budget {budget.name} has reached {measure.percent} % of its limit"
    if measure.kind == ActionKind.PAUSE:
        why = f"{message}: its calls wait for a decision by people"
        return Refuse(403, PERMISSION, why, reason="budget_paused", budget=budget)
    return Refuse(402, QUOTA, message, reason="budget_threshold", budget=budget)


def measure_cut(measure: Measure, budget: BudgetPolicy) -> Cut:
    """Why a running call ends whose budget has reached a threshold that cuts."""
    message = f"Budget {budget.name} has reached {measure.percent} % of its limit"
    return Cut("budget_threshold", message, budget=budget)


def unpriced(model: str, *, budget: BudgetPolicy | None = None) -> Refuse:
    """A model without a price, where a hard budget counts dollars."""
    return Refuse(
        status=403,
        type=PERMISSION,
        code="unpriced_model",
        reason="unpriced_model",
        param="model",
        message=f"Model {model!r} has no price, and a budget in dollars must hold",
        budget=budget,
    )


def unreachable() -> Refuse:
    """Nothing was granted in time, and nobody said why."""
    return Refuse(
        status=503,
        type=UNAVAILABLE,
        code=UNAVAILABLE,
        reason="no_lease",
        message="The control plane did not grant a lease in time",
        retry_after_s=1,
    )


def throttled(*, retry_in_ns: int, what: str) -> Refuse:
    """A rate limit that waiting within the request's own deadline does not help."""
    seconds = max(-(-retry_in_ns // 1_000_000_000), 1)
    return Refuse(
        status=429,
        type=RATE,
        message=f"The agent's limit of {what.replace('_', ' ')} is reached",
        reason=what,
        retry_after_s=min(seconds, MAX_RETRY_AFTER_S),
    )


def large_too_soon(*, retry_in_ns: int) -> Refuse:
    """A large body of an agent whose large bodies were refused a moment ago."""
    seconds = max(-(-retry_in_ns // 1_000_000_000), 1)
    return Refuse(
        status=429,
        type=RATE,
        message="A large body of this agent was refused a moment ago: the next one has to wait",
        reason="large_body_too_soon",
        retry_after_s=min(seconds, MAX_RETRY_AFTER_S),
    )


def refusal_body(refusal: Refuse, *, request_id: str) -> dict[str, Any]:
    """The answer's JSON in OpenAI's dialect, with our own fields beside theirs."""
    facts = refusal_facts(refusal, request_id=request_id)
    return {"error": facts | {"type": refusal.type, "param": refusal.param or None}}


def refusal_facts(refusal: Refuse, *, request_id: str) -> dict[str, Any]:
    """What every dialect says of a refusal, under our own names."""
    facts: dict[str, Any] = {
        "message": refusal.message,
        "code": refusal.code or refusal.type,
        "request_id": request_id,
    }
    if refusal.param:
        facts["param"] = refusal.param
    if refusal.reason:
        facts["reason"] = refusal.reason
    if refusal.budget is not None:
        facts |= budget_fields(refusal.budget)
        facts["limit"] = shown(refusal.budget.unit, refusal.limit)
        facts["spent"] = shown(refusal.budget.unit, refusal.spent)
        facts["held"] = shown(refusal.budget.unit, refusal.held)
        facts["window_ends_at"] = instant_text(refusal.window_ends_at_ms)
        facts["request_increase_url"] = refusal.budget.increase_url or None
    return facts


def budget_fields(budget: BudgetPolicy) -> dict[str, Any]:
    """What names a budget in answers."""
    return {
        "budget": budget.name,
        "budget_id": budget.id,
        "scope": budget.scope_kind.value,
        "unit": budget.unit.value,
    }


def cut_note(cut: Cut, *, request_id: str, output_tokens: int) -> dict[str, Any]:
    """The `comptroller` object of the last event of a stream that was cut."""
    note: dict[str, Any] = {
        "outcome": "cut",
        "reason": cut.reason,
        "message": cut.message,
        "output_tokens": output_tokens,
        "request_id": request_id,
    }
    if cut.budget is not None:
        note |= budget_fields(cut.budget)
    if cut.order:
        note["order"] = cut.order
    if cut.hand_back_tokens:
        note["hand_back_tokens"] = cut.hand_back_tokens
    return note


def clamp_note(clamped: Clamped, *, request_id: str) -> dict[str, Any]:
    """The `comptroller` object of an answer that ended by the limit that we lowered."""
    note: dict[str, Any] = {
        "outcome": "clamped",
        "reason": "budget_exhausted",
        "message": "The answer was limited to what the budget still pays for",
        "max_output_tokens": clamped.output_limit,
        "request_id": request_id,
    }
    if clamped.budget is not None:
        note |= budget_fields(clamped.budget)
    return note


def shown(unit: Unit, amount: int) -> int | str:
    """An amount as people read it: exact decimal dollars, or a count."""
    return usd_text(amount) if unit is Unit.USD else amount


def instant_text(at_ms: int | None) -> str | None:
    """An instant of a record, as RFC 3339 text."""
    if at_ms is None:
        return None
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat().replace("+00:00", "Z")
