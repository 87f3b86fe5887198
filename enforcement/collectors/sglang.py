"""SGLang (`--enable-metrics`), alone or split into prefill and decode servers.

Counters of tokens move when a request ends, also when it was aborted. A pair of disaggregated
servers runs each request twice: the prefill server reads the prompt and makes one token, which the
decode server makes part of its answer after it took the prompt over. So prompts count where they
are read, and answers where they are made; a node is one of the two. Names as of SGLang 0.5.
"""

from typing import Final

from enforcement.collectors.base import CollectorError, Reading, text_at
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "sglang:prompt_tokens"
_CACHED: Final = "sglang:cached_tokens"
_PRODUCED: Final = "sglang:generation_tokens"
_RUNNING: Final = "sglang:num_running_reqs"
_WAITING: Final = "sglang:num_queue_reqs"
_STARTED: Final = "process_start_time_seconds"
_EXTRA: Final = {
    "sglang:num_aborted_requests": "aborted",
    "sglang:num_retracted_requests": "preemptions",
    "sglang:num_transfer_failed_reqs": "failed_transfers",
}
PREFILL, DECODE = "prefill", "decode"


class Sglang:
    engine = "sglang"
    metrics_path = "/metrics"
    version_path = "/get_server_info"
    names = frozenset({_PROMPT, _CACHED, _PRODUCED, _RUNNING, _WAITING, _STARTED, *_EXTRA})

    def recognises(self, page: Page) -> bool:
        return "sglang" in page.prefixes

    def read(self, page: Page) -> Reading:
        prompt, produced = page.total(_PROMPT), page.total(_PRODUCED)
        if prompt is None or produced is None:
            raise CollectorError("SGLang's page has no token counters")
        roles = {series.labels.get("engine_type") for series in page.series[_PROMPT]}
        prompt = 0 if roles == {DECODE} else prompt
        started = page.first(_STARTED)
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=min(prompt, page.total(_CACHED) or 0),
            generation_tokens=0 if roles == {PREFILL} else produced,
            requests_running=page.total(_RUNNING) or 0,
            requests_waiting=page.total(_WAITING) or 0,
            life=started.text if started else "",
            started_at=started.value if started else None,
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra={word: page.total(name) or 0 for name, word in _EXTRA.items() if page.has(name)},
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")
