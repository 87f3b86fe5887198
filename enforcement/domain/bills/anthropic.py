"""Bills of Anthropic: its usage and cost reports, and the table of tokens of its console.

https://docs.anthropic.com/en/api/usage-cost-api: money is in cents, as a decimal; what was read
from a cache, or written to one, is not among the uncached tokens.
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

from enforcement.domain.bills.lines import Line, in_usd, nanos, period, text, tokens
from enforcement.errors import BillError

PROVIDER = "anthropic"
CENTS_PER_USD = 100
CSV = frozenset({"usage_date_utc", "model_version", "usage_output_tokens"})
_CSV_CACHED = "usage_input_tokens_cache_read"
_CSV_PROMPT = (
    *("usage_input_tokens_no_cache", "usage_input_tokens_cache_write_5m"),
    *("usage_input_tokens_cache_write_1h", _CSV_CACHED),
)


def from_api(bucket: Mapping[str, Any], provider: str) -> Iterator[Line]:
    """Lines of one bucket, of either report."""
    for result in bucket["results"]:
        when = period(bucket["starting_at"], bucket["ending_at"])
        if "amount" in result:
            in_usd(result.get("currency"))
            yield Line(
                provider,
                when,
                model=text(result.get("model")),
                item=text(result.get("description")),
                cost_nanos=nanos("amount", result["amount"], per_usd=CENTS_PER_USD),
            )
        else:
            written = result.get("cache_creation") or {}
            cached = tokens(result, "cache_read_input_tokens")
            kept = tokens(written, "ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens")
            yield Line(
                provider,
                when,
                model=text(result.get("model")),
                prompt_tokens=tokens(result, "uncached_input_tokens") + kept + cached,
                cached_tokens=cached,
                generation_tokens=tokens(result, "output_tokens"),
            )


def from_csv(row: Mapping[str, str], provider: str) -> Iterator[Line]:
    """The line of one row: a day of UTC."""
    try:
        day = date.fromisoformat(row["usage_date_utc"])
    except ValueError:
        raise BillError(f"no date: {row['usage_date_utc'][:40]!r}") from None
    yield Line(
        provider,
        period(day.isoformat(), (day + timedelta(days=1)).isoformat()),
        model=text(row["model_version"]),
        prompt_tokens=tokens(row, *_CSV_PROMPT),
        cached_tokens=tokens(row, _CSV_CACHED),
        generation_tokens=tokens(row, "usage_output_tokens"),
    )
