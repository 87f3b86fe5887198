"""Hugging Face `transformers serve`: it has no counters, and tells that it is alive.

`GET /health` answers 503 when the worker of continuous batching has died (5.23.0). llama.cpp
says the same words of itself, and another server's name beside them.
"""

from collections.abc import Mapping
from typing import Any

from enforcement.collectors.base import Reading


class Transformers:
    engine = "transformers"
    metrics_path = "/health"
    version_path = ""

    def recognises(self, state: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
        return state == {"status": "ok"} and headers.get("server") == "uvicorn"

    def read(self, state: Mapping[str, Any]) -> Reading:  # noqa: ARG002 -- StateCollector
        return Reading(prompt_tokens=0, cached_tokens=0, generation_tokens=0)

    def version(self, body: bytes) -> str:  # noqa: ARG002 -- Source
        return ""
