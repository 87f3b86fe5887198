"""vLLM. Counts tokens as they are made, aborted requests included.

The per-request series (`request_success`, `request_generation_tokens`) leave aborted requests out:
a runaway that was cut would be invisible there, so they are not used.
"""

from typing import Final

from enforcement.collectors.base import (
    Reading,
    cached_of,
    extras,
    life_of,
    stages,
    text_at,
    tokens_of,
)
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "vllm:prompt_tokens"
_CACHED: Final = "vllm:prompt_tokens_cached"
_CACHE_HITS: Final = ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")
_PRODUCED: Final = "vllm:generation_tokens"
_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_STARTED: Final = "process_start_time_seconds"
_EXTRA: Final = {"vllm:num_preemptions": "preemptions", "vllm:admission_rejections": "rejections"}

_PREFILL: Final = "vllm:request_prefill_time_seconds_sum"
_DECODE: Final = "vllm:request_decode_time_seconds_sum"


class Vllm:
    engine = "vllm"
    metrics_path = "/metrics"
    version_path = "/version"
    names = frozenset(
        {_PROMPT, _CACHED, *_CACHE_HITS, _PRODUCED, _RUNNING, _WAITING, _STARTED, *_EXTRA}
        | {_PREFILL, _DECODE}
    )

    def recognises(self, page: Page) -> bool:
        return "vllm" in page.prefixes

    def read(self, page: Page) -> Reading:
        """All models and engines of the server together: a node is a process."""
        prompt, produced = tokens_of(page, "vLLM's", _PROMPT, _PRODUCED)
        life, started_at = life_of(page, _STARTED)
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=cached_of(page, _cached_name(page), prompt),
            generation_tokens=produced,
            requests_running=page.optional(_RUNNING) or 0,
            requests_waiting=page.optional(_WAITING) or 0,
            life=life,
            started_at=started_at,
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra={**extras(page, _EXTRA), **stages(page, _PREFILL, _DECODE)},
            notes=page.notes,
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")


def _cached_name(page: Page) -> str:
    """Newer versions count it; older ones only tell the hits of their prefix cache."""
    return next((name for name in (_CACHED, *_CACHE_HITS) if page.has(name)), _CACHED)
