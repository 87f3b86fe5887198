"""Which datum each engine gives, found by reading a page of it with its collector.

    ./run nodes [--only ENGINE] [--write]

Starts every engine that installs here, one after the other, and checks its collector: a whole answer,
a stream, and a client that leaves. Engines that are no part of the lock are installed into `.nodes`
first (about 6 GB, once). `--write` puts the table into the docs.

A row is `live` when the engine itself is started here, `capture` when its page was kept from a real
server, `documentation` when the page is written by hand after what its makers say.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from enforcement.collectors.base import Reading
from enforcement.collectors.fetch import Answer
from enforcement.collectors.prometheus import Page, parse_page
from enforcement.collectors.registry import NAMES, read_page
from tests.collectors.engines.live import Seen, tried
from tests.collectors.engines.starts import STARTS

FIXTURES = Path(__file__).parent / "fixtures"
DOCUMENT = Path(__file__).parents[2] / "docs" / "collectors.md"
BEGIN, END = "<!-- the table of ./run nodes -->\n", "<!-- its end -->\n"
COLUMNS = (
    "engine", "verified", "prompt", "cached", "generated", "running", "waiting", "restart", "more",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where the page of an engine comes from."""

    engine: str
    verified: str
    page: str


SOURCES = (
    Source("llama.cpp", "live", "llamacpp.prom"),
    Source("vllm", "live", "vllm_0_32.prom"),
    Source("dynamo", "live", "dynamo_frontend.prom"),
    Source("dynamo-worker", "live", "dynamo_decode.prom"),
    Source("litellm", "live", "litellm.prom"),
    Source("sglang", "documentation", "sglang_documented.prom"),
    Source("tgi", "documentation", "tgi_documented.prom"),
    Source("dcgm", "documentation", "dcgm_documented.prom"),
    Source("amd-metrics", "documentation", "amd_documented.prom"),
    Source("intel-xpum", "documentation", "intel_documented.prom"),
    Source("nvidia-smi", "documentation", "nvidia_smi_documented.prom"),
    Source("all-smi", "documentation", "all_smi_documented.prom"),
)
# Their use is in their answers alone: what the sidecar meters is all there is. And what else they tell.
WITHOUT_COUNTERS = {
    "transformers": ("live", "alive"),
    "ollama": ("documentation", "accelerator_bytes, loaded_bytes, loaded_models"),
}
# Dynamo's planes listen on all addresses, and want one that is no loopback's: a network of its own.
_NETWORK = """
ip link set lo up
ip link add here type veth peer name there
ip address add 10.99.0.1/24 dev here
ip link set here up && ip link set there up && exec "$@"
"""
_APART = ("unshare", "--map-root-user", "--net", "sh", "-c", _NETWORK, "sh")
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


def bare_rows() -> list[list[str]]:
    """A row for each engine that has no counters."""
    none = ["in answers", "—", "in answers", "—", "—", "—"]
    return [[name, verified, *none, more] for name, (verified, more) in WITHOUT_COUNTERS.items()]


def live(name: str) -> list[list[str]]:
    """Try an engine; the rows that its own pages make. Raises WrongCountsError."""
    seen = _apart(name) if name == "dynamo" else tried(name)
    for words in seen.words:
        print(f"{name}: {words}")
    if not seen.pages:
        return [found for found in bare_rows() if found[0] == name]
    return [_live_row(page) for page in seen.pages]


def _live_row(page: Answer) -> list[str]:
    collector, _ = read_page(page.body.decode(), page.headers)
    return row(Source(collector.engine, "live", ""), page.body.decode(), page.headers)


def _apart(name: str) -> Seen:
    """The same in a network namespace of its own."""
    command = (*_APART, sys.executable, "-m", "tests.collectors.nodes", "--inside", name)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    pages = (Answer(body.encode(), headers) for body, headers in told["pages"])
    return Seen(tuple(pages), tuple(told["words"]))


def _inside(name: str) -> None:
    seen = tried(name)
    pages = [(page.body.decode(), page.headers) for page in seen.pages]
    print(json.dumps({"pages": pages, "words": seen.words}))


def documented() -> str:
    """The table as it stands in the documentation."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def whole_table() -> str:
    """As the documentation should have it."""
    return table([*kept_rows(), *bare_rows()])


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run nodes", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=STARTS, help="this engine alone")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    parser.add_argument("--inside", choices=STARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        _inside(asked.inside)
        return 0
    told, wrong = [*kept_rows(), *bare_rows()], []
    known = {tuple(found[:-1]) for found in told}  # a counter more comes with its first event
    for name in [asked.only] if asked.only else STARTS:
        wrong += [found for found in live(name) if tuple(found[:-1]) not in known]
    print("\n" + table(told))
    for found in wrong:
        print(f"not as documented: {' | '.join(found)}")
    if asked.write:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + whole_table() + END + rest.partition(END)[2])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
