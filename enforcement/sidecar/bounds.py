"""What a call is told that nothing bounds, where a budget must hold (L2)."""

from enforcement.rules.matching import Plan
from enforcement.rules.policy import OUTPUT_UNITS, PROMPT_UNITS, Unit
from enforcement.rules.requests import ParsedRequest
from enforcement.rules.verdicts import PERMISSION, Refuse
from enforcement.sidecar.engines import Upstream

_COUNTED_UNITS = PROMPT_UNITS | OUTPUT_UNITS | {Unit.TOOL_CALLS}


def unbounded(parsed: ParsedRequest, plan: Plan, upstream: Upstream) -> Refuse | None:
    """The refusal of a call whose kind or content nothing bounds; None where something does."""
    if parsed.opaque and not plan.units.isdisjoint(_COUNTED_UNITS):
        return _refusal("is of a kind that nobody here can count")
    if parsed.hosted and plan.prompt_sized and upstream.runs_tools:
        return _refusal("lets the provider run tools, as often as it likes")
    if parsed.unseen and plan.prompt_sized and upstream.context_window is None:
        return _refusal("brings content of unknown size; see --context-window")
    return None


def unbounded_refusal() -> Refuse:
    """The same where neither the prompt's size nor a window is known."""
    return _refusal(
        "has a prompt of unknown size, and the node's context window is not known;"
        " see --context-window"
    )


def _refusal(what: str) -> Refuse:
    return Refuse(
        status=403,
        type=PERMISSION,
        code="unbounded_request",
        reason="unbounded_request",
        message=f"A budget must hold, and the request {what}",
    )
