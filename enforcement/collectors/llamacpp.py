"""llama.cpp's server (`--metrics`), also inside `xllamacpp` and newer Ollama.

Its page has no labels and prints totals with six digits, as C++ streams do. A header names the life
of the process: microseconds of a clock that counts from the machine's start, so no date. A request
is counted when it ends, also when it was aborted; until then it shows in `requests_processing`.
"""

from typing import Final

from enforcement.collectors.base import Reading, extras, stages, text_at, tokens_of
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "llamacpp:prompt_tokens"
_CACHED: Final = "llamacpp:prompt_tokens_cached"
_PRODUCED: Final = "llamacpp:tokens_predicted"
_RUNNING: Final = "llamacpp:requests_processing"
_WAITING: Final = "llamacpp:requests_deferred"
_LIFE: Final = "process-start-time-unix"
_EXTRA: Final = {
    "llamacpp:n_decode": "decodes",
    "llamacpp:spec_decode_num_draft_tokens": "draft_tokens",
    "llamacpp:spec_decode_num_accepted_tokens": "accepted_draft_tokens",
}


_PREFILL: Final = "llamacpp:prompt_seconds"
_DECODE: Final = "llamacpp:tokens_predicted_seconds"


class LlamaCpp:
    engine = "llama.cpp"
    metrics_path = "/metrics"
    version_path = "/props"
    names = frozenset({_PROMPT, _CACHED, _PRODUCED, _RUNNING, _WAITING, _PREFILL, _DECODE, *_EXTRA})

    def recognises(self, page: Page) -> bool:
        return "llamacpp" in page.prefixes

    def read(self, page: Page) -> Reading:
        """Builds before the cached counter leave cached tokens out: their prompts are uncached."""
        uncached, produced = tokens_of(page, "llama.cpp's", _PROMPT, _PRODUCED)
        cached = page.total(_CACHED) or 0  # part of the prompt's total: not optional
        return Reading(
            prompt_tokens=uncached + cached,
            cached_tokens=cached,
            generation_tokens=produced,
            requests_running=page.optional(_RUNNING) or 0,
            requests_waiting=page.optional(_WAITING) or 0,
            life=page.headers.get(_LIFE, ""),
            resolution=page.resolution(_PROMPT, _CACHED, _PRODUCED),
            extra={**extras(page, _EXTRA), **stages(page, _PREFILL, _DECODE)},
            notes=page.notes,
        )

    def version(self, body: bytes) -> str:
        """`build_info` of /props, for example `b11434-6d2a3a1`."""
        return text_at(body, "build_info")
