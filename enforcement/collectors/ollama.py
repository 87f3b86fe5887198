"""Ollama: it has no counters, and tells which models it keeps loaded.

https://github.com/ollama/ollama/blob/main/docs/api.md, "List Running Models" and "Version". What a
loaded model takes is the idle cost of a node that nobody asks anything. Newer versions can also be
read as llama.cpp, where its server's own page can be reached.
"""

from collections.abc import Mapping
from typing import Any

from enforcement.collectors.base import LARGEST, Reading, text_at


class Ollama:
    engine = "ollama"
    metrics_path = "/api/ps"
    version_path = "/api/version"

    def recognises(self, state: Mapping[str, Any], headers: Mapping[str, str]) -> bool:  # noqa: ARG002 -- StateCollector
        models = state.get("models")
        return isinstance(models, list) and all(
            isinstance(model, dict) and "size_vram" in model for model in models
        )

    def read(self, state: Mapping[str, Any]) -> Reading:
        models = state["models"]
        sizes = {
            "loaded_bytes": [model.get("size") for model in models],
            "accelerator_bytes": [model["size_vram"] for model in models],
        }
        good = {word: [size for size in found if _is_size(size)] for word, found in sizes.items()}
        odd = any(len(good[word]) < len(models) for word in sizes)
        return Reading(
            prompt_tokens=0,
            cached_tokens=0,
            generation_tokens=0,
            extra={
                "loaded_models": len(models),
                **{word: min(LARGEST, sum(found)) for word, found in good.items()},
            },
            notes=("a model's size is no count of bytes: left out",) if odd else (),
        )

    def version(self, body: bytes) -> str:
        return text_at(body, "version")


def _is_size(told: object) -> bool:
    return type(told) is int and 0 <= told <= LARGEST
