"""vLLM. Counts tokens as they are made, aborted requests included.

The per-request series (`request_success`, `request_generation_tokens`) leave aborted requests out:
a runaway that was cut would be invisible there, so they are not used.
"""

from typing import Final

from enforcement.collectors.base import CollectorError, Reading, text_at
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "vllm:prompt_tokens"
_CACHED: Final = "vllm:prompt_tokens_cached"
_CACHE_HITS: Final = ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")
_PRODUCED: Final = "vllm:generation_tokens"
_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_STARTED: Final = "process_start_time_seconds"
_EXTRA: Final = {"vllm:num_preemptions": "preemptions", "vllm:admission_rejections": "rejections"}


class Vllm:
    engine = "vllm"
    metrics_path = "/metrics"
    version_path = "/version"
    names = frozenset(
        {_PROMPT, _CACHED, *_CACHE_HITS, _PRODUCED, _RUNNING, _WAITING, _STARTED, *_EXTRA}
    )

    def recognises(self, page: Page) -> bool:
        return "vllm" in page.prefixes

    def read(self, page: Page) -> Reading:
        """All models and engines of the server together: a node is a process."""
        prompt, produced = page.total(_PROMPT), page.total(_PRODUCED)
        if prompt is None or produced is None:
            raise CollectorError("vLLM's page has no token counters")
        started = page.first(_STARTED)
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=min(prompt, _cached(page)),
            generation_tokens=produced,
            requests_running=page.total(_RUNNING) or 0,
            requests_waiting=page.total(_WAITING) or 0,
            life=started.text if started else "",
            started_at=started.value if started else None,
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra={word: page.total(name) or 0 for name, word in _EXTRA.items() if page.has(name)},
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")


def _cached(page: Page) -> int:
    """Newer versions count it; older ones only tell the hits of their prefix cache."""
    for name in (_CACHED, *_CACHE_HITS):
        total = page.total(name)
        if total is not None:
            return total
    return 0
