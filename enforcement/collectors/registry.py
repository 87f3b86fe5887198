"""The engines that can be read. A new one: a module beside this one, and a line here."""

import json
from collections.abc import Iterable, Mapping

from enforcement.collectors.base import Collector, CollectorError, Reading, Source, StateCollector
from enforcement.collectors.devices import ALL_SMI, AMD, DCGM, INTEL, NVIDIA_SMI
from enforcement.collectors.dynamo import DynamoFrontend, DynamoWorker
from enforcement.collectors.litellm import LiteLlm
from enforcement.collectors.llamacpp import LlamaCpp
from enforcement.collectors.ollama import Ollama
from enforcement.collectors.prometheus import PageError, parse_page
from enforcement.collectors.sglang import Sglang
from enforcement.collectors.tgi import Tgi
from enforcement.collectors.transformers import Transformers
from enforcement.collectors.vllm import Vllm

DEVICES = (DCGM, AMD, INTEL, NVIDIA_SMI, ALL_SMI)
EXPORTERS = frozenset(exporter.engine for exporter in DEVICES)  # of devices: they make no tokens

# The first that recognises a page reads it: a worker of Dynamo also shows the engine inside it.
COLLECTORS: tuple[Collector, ...] = (
    DynamoFrontend(),
    DynamoWorker(),
    LlamaCpp(),
    Vllm(),
    Sglang(),
    Tgi(),
    LiteLlm(),
    *DEVICES,
)
STATE_COLLECTORS: tuple[StateCollector, ...] = (Ollama(), Transformers())
# What they make is in their answers alone, and nobody sees from outside whether they work.
WITHOUT_COUNTERS = frozenset(collector.engine for collector in STATE_COLLECTORS)
BY_ENGINE: dict[str, Source] = {
    collector.engine: collector for collector in (*COLLECTORS, *STATE_COLLECTORS)
}
NAMES = frozenset(name for collector in COLLECTORS for name in collector.names)


def read_page(text: str, headers: Mapping[str, str] | None = None) -> tuple[Source, Reading]:
    """Which engine a page is of, and what it says. Names of headers are in lower case.

    Raises CollectorError: a page of no known engine, or a broken one.
    """
    if text.lstrip().startswith("{"):
        return _read_state(text, headers or {})
    try:
        page = parse_page(text, names=NAMES, headers=headers)
        for collector in COLLECTORS:
            if collector.recognises(page):
                return collector, collector.read(page)
    except PageError as error:
        raise CollectorError(str(error)) from error
    raise CollectorError(f"metrics of no known engine: {_listed(page.prefixes)}")


def _read_state(text: str, headers: Mapping[str, str]) -> tuple[Source, Reading]:
    try:
        state = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CollectorError("answered a document, not metrics") from error
    for collector in STATE_COLLECTORS:
        if collector.recognises(state, headers):
            return collector, collector.read(state)
    raise CollectorError("answered a document, not metrics, and not the state of a known engine")


def _listed(prefixes: Iterable[str]) -> str:
    return ", ".join(sorted(prefix for prefix in prefixes if prefix)[:5]) or "no names"
