"""Bills of OpenAI: its usage and costs APIs, and the tables that its console exports.

https://platform.openai.com/docs/api-reference/usage: pages of buckets with results. A line item of
costs names its model before a comma ("gpt-4o-2024-08-06, input"), or is something else.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from enforcement.domain.bills.lines import Line, Period, in_usd, nanos, period, text, tokens

PROVIDER = "openai"
COSTS = "organization.costs.result"
USAGE = (
    "organization.usage.completions.result",
    "organization.usage.embeddings.result",
    "organization.usage.moderations.result",
)
CSV_COSTS = frozenset({"start_time", "end_time", "amount_value", "amount_currency", "line_item"})
CSV_USAGE = frozenset({"start_time", "end_time", "model", "input_tokens", "num_model_requests"})
# Where a total over all modalities is told, audio is a part of it; before, it stood beside text.
_TOTAL_IS_TOLD = ("input_text_tokens", "input_uncached_tokens")


def from_api(bucket: Mapping[str, Any], provider: str) -> Iterator[Line]:
    """Lines of one bucket; results without tokens or money (images, storage) tell none."""
    for result in bucket["results"]:
        when = period(bucket["start_time"], bucket["end_time"])
        if result.get("object") == COSTS:
            amount = result.get("amount") or {}
            in_usd(amount.get("currency"))
            yield _cost(result.get("line_item"), amount.get("value"), when, provider)
        elif result.get("object") in USAGE:
            yield _usage(result, when, provider)


def from_csv(row: Mapping[str, str], provider: str) -> Iterator[Line]:
    """The line of one row; rows of a time without use are empty."""
    when = period(row["start_time"], row["end_time"])
    if "amount_value" in row:
        if row["amount_value"]:
            in_usd(row["amount_currency"])
            yield _cost(row["line_item"], row["amount_value"], when, provider)
    elif row["num_model_requests"]:
        yield _usage(row, when, provider)


def _cost(item: object, amount: object, when: Period, provider: str) -> Line:
    model, comma, _ = text(item).partition(",")
    return Line(
        provider,
        when,
        model=model.strip() if comma else "",
        item=text(item),
        cost_nanos=nanos("amount", amount),
    )


def _usage(row: Mapping[str, Any], when: Period, provider: str) -> Line:
    is_total = any(row.get(name) for name in _TOTAL_IS_TOLD)
    audio = () if is_total else ("input_audio_tokens",)
    spoken = () if is_total else ("output_audio_tokens",)
    return Line(
        provider,
        when,
        model=text(row.get("model")),
        prompt_tokens=tokens(row, "input_tokens", *audio),
        cached_tokens=tokens(row, "input_cached_tokens"),
        generation_tokens=tokens(row, "output_tokens", *spoken),
        calls=tokens(row, "num_model_requests"),
    )
