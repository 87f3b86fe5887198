"""LiteLLM's proxy with its `prometheus` callback: a gateway in front of other engines.

Its counts are its own bookkeeping: streams that its hooks cut are in none of them, and a client
that left is counted by an estimate. So a difference to what was metered is likely there.
"""

from decimal import Decimal
from typing import Final

from enforcement.collectors.base import CollectorError, Reading, text_at
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "litellm_input_tokens_metric"
_CACHED: Final = "litellm_input_cached_tokens_metric"
_PRODUCED: Final = "litellm_output_tokens_metric"
_SPEND: Final = "litellm_spend_metric"
_RUNNING: Final = "litellm_in_flight_requests"
_STARTED: Final = "process_start_time_seconds"
NANOS = 10**9


class LiteLlm:
    engine = "litellm"
    metrics_path = "/metrics/"  # the address without the slash redirects, and we follow nothing
    version_path = "/health/readiness"
    names = frozenset({_PROMPT, _CACHED, _PRODUCED, _SPEND, _RUNNING, _STARTED})

    def recognises(self, page: Page) -> bool:
        return any(page.has(name) for name in (_PROMPT, _PRODUCED, _SPEND))

    def read(self, page: Page) -> Reading:
        prompt, produced = page.total(_PROMPT), page.total(_PRODUCED)
        if prompt is None or produced is None:
            raise CollectorError("LiteLLM's page has no token counters")
        started = page.first(_STARTED)
        spent = sum((series.value for series in page.series.get(_SPEND, ())), Decimal(0))
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=min(prompt, page.total(_CACHED) or 0),
            generation_tokens=produced,
            requests_running=page.total(_RUNNING) or 0,
            life=started.text if started else "",
            started_at=started.value if started else None,
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra={"spent_nanos": int(spent * NANOS)},
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "litellm_version")
