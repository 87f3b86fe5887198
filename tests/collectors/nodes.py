"""Which datum each engine gives, found by reading a page of it with its collector.

    ./run nodes             # starts the engine that installs here, checks its collector, prints all
    python -m tests.collectors.nodes --write    # the same, and writes the table into the docs

A row is `live` when the engine itself is started here, `capture` when its page was kept from a real
server, `documentation` when the page is written by hand after what its makers say.
"""

import asyncio
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from enforcement.collectors.base import Reading
from enforcement.collectors.fetch import fetch
from enforcement.collectors.prometheus import Page, parse_page
from enforcement.collectors.registry import BY_ENGINE, NAMES, read_page
from tests.collectors.modelserver import chat, metrics_text, model_server

FIXTURES = Path(__file__).parent / "fixtures"
DOCUMENT = Path(__file__).parents[2] / "docs" / "collectors.md"
BEGIN, END = "<!-- the table of ./run nodes -->\n", "<!-- its end -->\n"
COLUMNS = (
    "engine", "verified", "prompt", "cached", "generated", "running", "waiting", "restart", "more",
)  # fmt: skip
ASKED_TOKENS = 24


@dataclass(frozen=True)
class Source:
    """Where the page of an engine comes from."""

    engine: str
    verified: str
    page: str


SOURCES = (
    Source("llama.cpp", "live", "llamacpp.prom"),
    Source("vllm", "capture", "vllm_0_32.prom"),
    Source("dynamo", "capture", "dynamo_frontend.prom"),
    Source("dynamo-worker", "capture", "dynamo_decode.prom"),
    Source("litellm", "capture", "litellm.prom"),
    Source("sglang", "documentation", "sglang_documented.prom"),
    Source("tgi", "documentation", "tgi_documented.prom"),
    Source("dcgm", "documentation", "dcgm_documented.prom"),
    Source("amd-metrics", "documentation", "amd_documented.prom"),
)
WORDS = {
    "cached": ("cached", "cache_hits"),
    "running": ("running", "processing", "inflight", "in_flight", "batch_current"),
    "waiting": ("waiting", "deferred", "queue"),
}


def row(source: Source, text: str, headers: dict[str, str] | None = None) -> list[str]:
    """What the collector of this engine finds on such a page. Raises CollectorError: nothing."""
    collector, reading = read_page(text, headers)
    assert collector.engine == source.engine, f"read as {collector.engine}"
    page = parse_page(text, names=collector.names & NAMES)
    counts = "—" if reading.devices or source.engine == "dynamo-worker" else "yes"
    return [
        source.engine,
        source.verified,
        counts,
        _given(page, "cached"),
        counts,
        _given(page, "running"),
        _given(page, "waiting"),
        _restart(reading),
        ", ".join(_figures(reading) or sorted(reading.extra)) or "—",
    ]


def _figures(reading: Reading) -> list[str]:
    """What its devices tell."""
    told = (asdict(device) for device in reading.devices)
    names = {name for figures in told for name, it in figures.items() if it is not None}
    return sorted(names - {"device", "model"})


def _restart(reading: Reading) -> str:
    if reading.devices:
        return "—"
    return "told" if reading.life else "a fallen total"


def _given(page: Page, datum: str) -> str:
    found = any(word in name for name in page.series for word in WORDS[datum])
    return "yes" if found else "—"


def kept_rows() -> list[list[str]]:
    """A row for each source by its kept page; llama.cpp tells its life in a header."""
    life = {"process-start-time-unix": "12099056185"}
    return [row(source, (FIXTURES / source.page).read_text(), life) for source in SOURCES]


def table(rows: list[list[str]]) -> str:
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def live_llamacpp() -> list[str]:
    """Start it, let it work, and compare what the collector says with what the answer said."""
    with model_server() as url:
        before, _, _ = _read(url)
        usage = chat(url, "Say something long.", max_tokens=ASKED_TOKENS)
        after, text, headers = _read(url)
    made = after.generation_tokens - before.generation_tokens
    read = after.prompt_tokens - before.prompt_tokens
    print(
        f"llama.cpp: asked {ASKED_TOKENS}, counted {made}; prompt {usage['prompt_tokens']}, {read}"
    )
    assert (made, read) == (ASKED_TOKENS, usage["prompt_tokens"])
    return row(SOURCES[0], text, headers)


def _read(url: str) -> tuple[Reading, str, dict[str, str]]:
    metrics_text(url)  # waits until no request runs
    answer = asyncio.run(fetch(url, "/metrics"))
    text = answer.body.decode()
    return read_page(text, answer.headers)[1], text, answer.headers


def documented() -> str:
    """The table as it stands in the documentation."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> int:
    rows = kept_rows()
    live = live_llamacpp()
    print(table([live, *rows[1:]]))
    if "--write" in sys.argv:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + table(rows) + END + rest.partition(END)[2])
    missing = BY_ENGINE.keys() - {source.engine for source in SOURCES}
    print(f"no page of: {', '.join(sorted(missing)) or 'none, every collector has one'}")
    return 0 if live == rows[0] and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
