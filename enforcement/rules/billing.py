"""Whether a provider's bill agrees with what was metered and charged, and why it does not."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from enforcement.rules.money import NANOS_PER_USD
from enforcement.rules.reconcile import Cause, CauseKind, HourCount, Threshold, Verdict, judge

CENT_NANOS = NANOS_PER_USD // 100
# What providers call a snapshot of a model that is asked for by its plain name.
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|latest)$")
# Usage appears within minutes, costs later; what was read sooner may still grow.
FINAL_AFTER = timedelta(hours=1)
_CERTAINTY = (Verdict.DRIFTS, Verdict.SHIFTED, Verdict.AGREES, Verdict.UNKNOWN, Verdict.ALONE)


class Counted(NamedTuple):
    """Tokens as both sides count them; cached ones are part of the prompt's."""

    prompt: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class BillCount:
    """Metered and charged, beside billed; what the bill does not tell is None.

    `read_at`: when it was read. `unpriced_calls` and `presumed_tokens` may explain a difference.
    """

    starts_at: datetime
    ends_at: datetime
    calls: int
    metered: Counted
    charge_nanos: int
    billed: Counted | None
    billed_nanos: int | None
    read_at: datetime
    is_of_models: bool = True
    unpriced_calls: int = 0
    presumed_tokens: int = 0

    @property
    def is_final(self) -> bool:
        return self.read_at >= self.ends_at + FINAL_AFTER


def family(model: str) -> str:
    """The plain name of a model, whichever snapshot was used or billed."""
    return _SNAPSHOT.sub("", model)


def surest(*verdicts: Verdict) -> Verdict:
    """What several comparisons of one row say together: what was found out counts."""
    return min(verdicts, key=_CERTAINTY.index)


def judge_bill(counts: list[BillCount], threshold: Threshold) -> list[Verdict]:
    """A verdict for each bill of one model; they rise, and have one length."""
    tokens = judge([_tokens(count) for count in counts], threshold)
    return [_both(count, verdict, threshold) for count, verdict in zip(counts, tokens, strict=True)]


def _tokens(count: BillCount) -> HourCount:
    billed = count.billed or Counted()
    return HourCount(
        hour=count.starts_at,
        metered_prompt_tokens=count.metered.prompt,
        metered_generation_tokens=count.metered.generation,
        produced_prompt_tokens=billed.prompt,
        produced_generation_tokens=billed.generation,
        is_known=count.is_final and count.billed is not None,
    )


def _both(count: BillCount, tokens: Verdict, threshold: Threshold) -> Verdict:
    if count.billed_nanos is None or not count.is_final:
        return tokens
    return surest(tokens, Verdict.AGREES if _same_money(count, threshold) else Verdict.DRIFTS)


def _same_money(count: BillCount, threshold: Threshold) -> bool:
    if count.billed_nanos is None:
        return True
    apart = abs(count.billed_nanos - count.charge_nanos)
    most = max(count.billed_nanos, count.charge_nanos)
    return apart <= max(CENT_NANOS, most * threshold.per_mille // 1000)


# ------------------------------------------------------------------------------- why


def bill_cause(count: BillCount, threshold: Threshold) -> Cause | None:
    """Why a bill drifts or says nothing yet; None where it agrees."""
    if not count.is_final:
        return Cause(
            CauseKind.BILL_OPEN,
            f"The bill was read at {count.read_at:%Y-%m-%d %H:%M} UTC, and may have grown since.",
        )
    if count.billed is not None and judge([_tokens(count)], threshold) == [Verdict.DRIFTS]:
        return _why_other_tokens(count, count.billed)
    if _same_money(count, threshold):
        return None
    return _why_other_money(count)


def _why_other_tokens(count: BillCount, billed: Counted) -> Cause:
    if sum(billed) > sum(count.metered):
        return Cause(
            CauseKind.PAST_SIDECARS,
            "The provider billed more than was metered: calls reach it around the sidecars.",
        )
    if sum(count.metered) - count.presumed_tokens <= sum(billed):
        return Cause(CauseKind.PRESUMED, "Calls without an exact usage are charged their bound.")
    return Cause(
        CauseKind.NOT_BILLED,
        "The provider billed less than was metered: another account, or another name?",
    )


def _why_other_money(count: BillCount) -> Cause:
    billed_more = (count.billed_nanos or 0) > count.charge_nanos
    if not count.is_of_models:
        return Cause(CauseKind.OTHER_CHARGES, "Billed for something that is no call of a model.")
    if billed_more and not count.calls:
        return Cause(
            CauseKind.PAST_SIDECARS,
            "The provider billed a model that nobody called through a sidecar.",
        )
    if billed_more and count.unpriced_calls:
        words = f"{count.unpriced_calls} calls had no price here and were charged nothing."
        return Cause(CauseKind.PRICE_MISSING, words)
    if count.billed is None:
        words = "Other prices or discounts, or calls around the sidecars: its usage would tell."
    else:
        words = "The tokens agree: the provider's prices or discounts are others than ours."
    return Cause(CauseKind.PRICE_DIFFERS, words)
