"""The engine's own counters: how many tokens it has read and made, asked of nobody else."""

import time
import urllib.request
from typing import NamedTuple

PREFIX = "llamacpp:"
QUIET_S = 10
POLL_S = 0.05


class Counters(NamedTuple):
    """Totals since the engine's start."""

    input_tokens: int
    output_tokens: int

    def since(self, earlier: "Counters") -> "Counters":
        return Counters(
            self.input_tokens - earlier.input_tokens, self.output_tokens - earlier.output_tokens
        )


def read_counters(url: str) -> Counters:
    """The totals, once no request runs: the engine books a request when it ends."""
    deadline = time.monotonic() + QUIET_S
    while True:
        values = parse_metrics(_get(f"{url}/metrics"))
        idle = not values["requests_processing"] and not values["requests_deferred"]
        if idle or time.monotonic() > deadline:
            return Counters(
                input_tokens=values["prompt_tokens_total"] + values["prompt_tokens_cached_total"],
                output_tokens=values["tokens_predicted_total"],
            )
        time.sleep(POLL_S)


def parse_metrics(text: str) -> dict[str, int]:
    """The counters of llama.cpp's page; it has no labels. Rates are cut to whole numbers."""
    values = {}
    for line in text.splitlines():
        if line.startswith(PREFIX):
            name, _, value = line.removeprefix(PREFIX).partition(" ")
            values[name] = int(float(value))
    return values


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 -- our own node
        text: str = answer.read().decode()
    return text
