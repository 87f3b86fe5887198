"""NVIDIA Dynamo: its front end counts, its workers do not.

A request passes the front end once, whatever runs behind it: one engine, or a prefill and a decode
worker that both work on it. A worker's own page (which also carries the metrics of the vLLM or
SGLang inside) is known as such and told to count nothing, so that no token is counted twice.

The front end has no counter of prompt tokens: the sum of its histogram is one. Cancelled requests
are in all of them. Each part has a `worker_id` that is new with each start.
"""

from typing import Final

from enforcement.collectors.base import CollectorError, Reading, cached_of, extras, text_at
from enforcement.collectors.prometheus import Page

_PROMPT: Final = "dynamo_frontend_input_sequence_tokens_sum"
_CACHED: Final = "dynamo_frontend_cached_tokens_sum"
_PRODUCED: Final = "dynamo_frontend_output_tokens"
_RUNNING: Final = "dynamo_frontend_inflight_requests"
_WAITING: Final = "dynamo_frontend_queued_requests"
_GONE: Final = "dynamo_frontend_disconnected_clients"  # there before the first request
_EXTRA: Final = {
    "dynamo_frontend_model_cancellation": "aborted",
    "dynamo_frontend_model_rejection": "rejections",
    "dynamo_frontend_model_migration": "migrations",
}
_WORKER: Final = "dynamo_component_requests"
_WORKER_RUNNING: Final = "dynamo_component_inflight_requests"
_UP: Final = "dynamo_component_uptime_seconds"


class DynamoFrontend:
    engine = "dynamo"
    metrics_path = "/metrics"
    version_path = "/health"
    names = frozenset({_PROMPT, _CACHED, _PRODUCED, _RUNNING, _WAITING, _GONE, _UP, *_EXTRA})

    def recognises(self, page: Page) -> bool:
        return any(page.has(name) for name in (_PROMPT, _PRODUCED, _RUNNING, _GONE))

    def read(self, page: Page) -> Reading:
        """A front end that has served nobody has no series of tokens yet."""
        prompt = page.total(_PROMPT) or 0
        return Reading(
            prompt_tokens=prompt,
            cached_tokens=cached_of(page, _CACHED, prompt),
            generation_tokens=page.total(_PRODUCED) or 0,
            requests_running=page.optional(_RUNNING) or 0,
            requests_waiting=page.optional(_WAITING) or 0,
            life=_life_of(page),
            resolution=page.resolution(_PROMPT, _PRODUCED),
            extra=extras(page, _EXTRA),
            notes=page.notes,
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")


class DynamoWorker:
    engine = "dynamo-worker"
    metrics_path = "/metrics"
    version_path = "/health"
    names = frozenset({_WORKER, _WORKER_RUNNING, _UP})

    def recognises(self, page: Page) -> bool:
        return page.has(_WORKER) or page.has(_UP)

    def read(self, page: Page) -> Reading:
        requests = page.total(_WORKER)
        if requests is None:
            raise CollectorError("the Dynamo worker's page has no requests")
        return Reading(
            prompt_tokens=0,
            cached_tokens=0,
            generation_tokens=0,
            requests_running=page.optional(_WORKER_RUNNING) or 0,
            life=_life_of(page),
            extra={"requests": requests},
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")


def _life_of(page: Page) -> str:
    up = page.first(_UP)
    return up.labels.get("worker_id", "") if up else ""
