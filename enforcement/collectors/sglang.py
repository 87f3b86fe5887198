"""SGLang (`--enable-metrics`), alone or split into prefill and decode servers.

Counters of tokens move when a request ends, also when it was aborted. A pair of disaggregated
servers runs each request twice: the prefill server reads the prompt and makes one token, which the
decode server makes part of its answer after it took the prompt over. So prompts count where they
are read, and answers where they are made; a node is one of the two. Names as of SGLang 0.5.
"""

from typing import Final

from enforcement.collectors.base import Reading, cached_of, extras, life_of, text_at, tokens_of
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
        prompt, produced = tokens_of(page, "SGLang's", _PROMPT, _PRODUCED)
        roles = {series.labels.get("engine_type") for series in page.series[_PROMPT]}
        prompt = 0 if roles == {DECODE} else prompt
        life, started_at = life_of(page, _STARTED)
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=cached_of(page, _CACHED, prompt),
            generation_tokens=0 if roles == {PREFILL} else produced,
            requests_running=page.optional(_RUNNING) or 0,
            requests_waiting=page.optional(_WAITING) or 0,
            life=life,
            started_at=started_at,
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra=extras(page, _EXTRA),
            notes=page.notes,
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")
