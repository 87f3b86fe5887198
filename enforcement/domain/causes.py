"""Why what an engine produced differs from what sidecars metered, in a sentence.

No evidence explains more than its own size: a busy engine, one restart or one call without an exact
usage would otherwise excuse whatever goes past the sidecars. The engine's counters never tell too
much, so a restart explains only why more was metered than produced.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from enforcement.collectors.registry import WITHOUT_COUNTERS
from enforcement.domain.gather import Tokens
from enforcement.models import NodeSample, ServingNode
from enforcement.rules.reconcile import Cause, CauseKind

# Less than both of these is the time between two clocks, not a difference.
NOISE_TOKENS = 50
NOISE_PER_MILLE = 5
STALE = timedelta(minutes=2)
NOTHING = Tokens()
NO_COUNTERS = Cause(CauseKind.NO_COUNTERS, "This engine has no counters to compare with.")
NOT_READ = Cause(CauseKind.NOT_READ, "Its counters have not been read yet.")
SETTLING = Cause(
    CauseKind.SETTLING,
    "Calls are running or ended a moment ago: the figures settle soon after they end.",
)
SPANNING = Cause(
    CauseKind.SETTLING,
    "Calls that span a full hour are metered in one hour and made in the next.",
)


@dataclass(frozen=True)
class Evidence:
    """What stands around a difference and may explain some of it."""

    last: NodeSample | None = None
    underway: Tokens = NOTHING  # made lately by calls that may not have been reported yet
    crossing: Tokens = NOTHING  # metered before the window of calls that ended within it
    arrived: Tokens = NOTHING  # metered since the engine was last read
    presumed: Tokens = NOTHING  # metered of calls without an exact usage
    presumed_calls: int = 0
    unreported: Tokens = NOTHING  # made while the books of its sidecar were silent
    silent_since: datetime | None = None
    incomplete: bool = False  # some hours hide a restart or a long silence
    in_whole_hours: Tokens = NOTHING  # produced without being metered, in all other hours

    @property
    def resolution(self) -> int:
        return int(self.last.extra.get("resolution", 1)) if self.last else 1


# ------------------------------------------------------------------------------- the sentence


def likely_cause(
    node: ServingNode, produced: Tokens, metered: Tokens, evidence: Evidence, *, now: datetime
) -> Cause | None:
    """Why the sides differ; None where they agree."""
    if not has_counters(node):
        return NO_COUNTERS
    if evidence.last is None and not node.last_error:
        return NOT_READ
    if exceeds(produced, metered):
        return _why_more_produced(produced, metered, evidence)
    if node.last_error:
        return unreadable(node)
    if exceeds(metered, produced):
        return _why_more_metered(produced, metered, evidence, now)
    return None


def has_counters(node: ServingNode) -> bool:
    """Whether its engine tells what it made: else nothing stands beside what was metered."""
    return bool(node.metrics_path) and node.engine not in WITHOUT_COUNTERS


def unreadable(node: ServingNode) -> Cause:
    return Cause(CauseKind.UNREADABLE, f"Its counters cannot be read: {node.last_error}.")


def stale(last_at: datetime) -> Cause:
    return Cause(CauseKind.STALE, f"Its counters have not been read since {_clock(last_at)}.")


def _why_more_produced(produced: Tokens, metered: Tokens, evidence: Evidence) -> Cause:
    known = plus(metered, evidence.crossing, evidence.underway)
    if not exceeds(produced, known):
        return SETTLING
    if _is_rounding(produced, metered, evidence):
        return _rounding(evidence)
    if evidence.silent_since and not exceeds(produced, plus(known, evidence.unreported)):
        since = _clock(evidence.silent_since)
        return Cause(CauseKind.UNSENT, f"Its sidecar has not reported since {since}.")
    lately = plus(evidence.crossing, evidence.underway)
    if evidence.incomplete and not exceeds(evidence.in_whole_hours, lately):
        return Cause(
            CauseKind.INCOMPLETE,
            "They differ only in hours in which the engine was restarted or could not be read.",
        )
    return Cause(CauseKind.PAST_SIDECARS, "Calls reach this engine without passing a sidecar.")


def _why_more_metered(
    produced: Tokens, metered: Tokens, evidence: Evidence, now: datetime
) -> Cause:
    if not exceeds(metered, plus(produced, evidence.arrived)):
        if evidence.last and evidence.last.at < now - STALE:
            return stale(evidence.last.at)
        return SETTLING
    if evidence.incomplete:
        return Cause(
            CauseKind.INCOMPLETE,
            "The engine was restarted, or could not be read for a time: its tokens are lost.",
        )
    if not exceeds(metered, plus(produced, evidence.presumed)):
        return Cause(
            CauseKind.PRESUMED,
            "Calls without an exact usage are charged their bound:"
            f" {evidence.presumed_calls} of them.",
        )
    if _is_rounding(produced, metered, evidence):
        return _rounding(evidence)
    return Cause(
        CauseKind.SAME_NAME,
        "Sidecars metered more than the engine counted: does another node have this name?",
    )


def _rounding(evidence: Evidence) -> Cause:
    words = f"The engine rounds its totals to {evidence.resolution} tokens."
    return Cause(CauseKind.ROUNDING, words)


def exceeds(more: Tokens, less: Tokens) -> bool:
    """Whether prompts or generated tokens are more than the noise above the other side's."""
    return any(
        a - b > max(NOISE_TOKENS, a * NOISE_PER_MILLE // 1000)
        for a, b in ((more.prompt, less.prompt), (more.generation, less.generation))
    )


def plus(*parts: Tokens) -> Tokens:
    return Tokens(*map(sum, zip(*parts, strict=True)))


def minus(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(*(a - b for a, b in zip(one, other, strict=True)))


def _is_rounding(one: Tokens, other: Tokens, evidence: Evidence) -> bool:
    off = max(abs(one.prompt - other.prompt), abs(one.generation - other.generation))
    return evidence.resolution > 1 and off <= 2 * evidence.resolution


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
