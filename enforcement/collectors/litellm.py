"""LiteLLM's proxy with its `prometheus` callback: a gateway in front of other engines.

Its counts are its own bookkeeping: streams that its hooks cut are in none of them, and a client
that left is counted by an estimate. So a difference to what was metered is likely there.
"""

from decimal import Decimal
from typing import Final

from enforcement.collectors.base import Reading, cached_of, life_of, text_at, tokens_of
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "litellm_input_tokens_metric"
_CACHED: Final = "litellm_input_cached_tokens_metric"
_PRODUCED: Final = "litellm_output_tokens_metric"
_SPEND: Final = "litellm_spend_metric"
_USED: Final = (_PROMPT, _PRODUCED, _SPEND)
_RUNNING: Final = "litellm_in_flight_requests"
_STARTED: Final = "process_start_time_seconds"
NANOS = 10**9


class LiteLlm:
    engine = "litellm"
    metrics_path = "/metrics/"  # the address without the slash redirects, and we follow nothing
    version_path = "/health/readiness"
    names = frozenset({_PROMPT, _CACHED, _PRODUCED, _SPEND, _RUNNING, _STARTED})

    def recognises(self, page: Page) -> bool:
        return any(page.has(name) for name in (*_USED, _RUNNING))

    def read(self, page: Page) -> Reading:
        """A proxy that has served nobody has no series of use yet."""
        prompt = produced = 0
        if any(page.has(name) for name in _USED):
            prompt, produced = tokens_of(page, "LiteLLM's", _PROMPT, _PRODUCED)
        life, started_at = life_of(page, _STARTED)
        told = (series.value for series in page.series.get(_SPEND, ()) if series.is_count)
        spent = sum(told, Decimal(0))
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=cached_of(page, _CACHED, prompt),
            generation_tokens=produced,
            requests_running=max(0, (page.optional(_RUNNING) or 0) - 1),  # this reading is one
            life=life,
            started_at=started_at,
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra={"spent_nanos": int(spent * NANOS)},
            notes=page.notes,
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "litellm_version")
