"""Hugging Face Text Generation Inference.

It has no counters of tokens: the sums of its histograms are. They hold requests that ended well;
one whose client left is in none of them, so what was cut looks metered but not produced.
"""

from typing import Final

from enforcement.collectors.base import Reading, extras, text_at, tokens_of
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "tgi_request_input_length_sum"
_PRODUCED: Final = "tgi_request_generated_tokens_sum"
_RUNNING: Final = "tgi_batch_current_size"
_WAITING: Final = "tgi_queue_size"
_EXTRA: Final = {"tgi_request_failure": "failed"}


class Tgi:
    engine = "tgi"
    metrics_path = "/metrics"
    version_path = "/info"
    names = frozenset({_PROMPT, _PRODUCED, _RUNNING, _WAITING, *_EXTRA})

    def recognises(self, page: Page) -> bool:
        return any(page.has(name) for name in self.names)

    def read(self, page: Page) -> Reading:
        prompt, produced = tokens_of(page, "TGI's", _PROMPT, _PRODUCED)
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=0,
            generation_tokens=produced,
            requests_running=page.optional(_RUNNING) or 0,
            requests_waiting=page.optional(_WAITING) or 0,
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra=extras(page, _EXTRA),
            notes=page.notes,
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")
