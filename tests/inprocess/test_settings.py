"""The variables that configure the in-process mode."""

from pathlib import Path

import pytest

from enforcement.inprocess.settings import read_settings
from enforcement.rules.margins import Stop
from enforcement.sidecar.config import ConfigError
from enforcement.sidecar.margins import write_stops

NEEDED = {
    "COMPTROLLER_CONTROL_URL": "http://127.0.0.1:8300",
    "COMPTROLLER_SIDECAR_TOKEN": "token",
    "COMPTROLLER_SPOOL_DIR": "/spool",
}
STOP = Stop(
    node="node-a",
    engine="vllm",
    version="0.32.0",
    streams=2,
    rate_tokens_per_s=117,
    stop_ms=64,
    tokens_after=0,
    chunk_tokens=1,
    source="metrics",
    measured_at_ms=0,
)


def test_every_process_has_a_spool_and_a_book_of_its_own() -> None:
    settings = read_settings(NEEDED | {"COMPTROLLER_BOOK": "gpu-7"})

    config = settings.for_worker(3)
    assert (config.spool_dir, config.book) == (Path("/spool/worker-3"), "gpu-7/3")


def test_numbers_and_the_engines_own_key_are_read() -> None:
    more = {
        "COMPTROLLER_NODE": "node-a",
        "COMPTROLLER_NODE_URL": "http://10.0.0.7:8000/",
        "COMPTROLLER_UPSTREAM_KEY_NODE_A": "sk-inside",
        "COMPTROLLER_CONTEXT_WINDOW": "2048",
        "COMPTROLLER_METERED_MARGIN": "96",
        "COMPTROLLER_GRANT_TIMEOUT": "0.5",
        "COMPTROLLER_PAGES": "/stats,/info",
    }

    settings = read_settings(NEEDED | more)

    config = settings.config
    assert (config.context_window, config.metered_margin_tokens) == (2048, 96)
    assert config.grant_timeout == 0.5
    (node,) = config.upstreams
    assert (node.name, node.base_url, node.key) == ("node-a", "http://10.0.0.7:8000", "sk-inside")
    assert settings.pages >= {"/stats", "/info", "/health", "/metrics"}


def test_what_doctor_measured_is_read(tmp_path: Path) -> None:
    write_stops(tmp_path, [STOP])
    settings = read_settings(NEEDED | {"COMPTROLLER_SPOOL_DIR": str(tmp_path)})
    assert settings.for_worker(1).stops == (STOP,)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"COMPTROLLER_CONTROL_URL": ""}, "COMPTROLLER_CONTROL_URL: is needed"),
        ({"COMPTROLLER_SPOOL_DIR": ""}, "COMPTROLLER_SPOOL_DIR: is needed"),
        ({"COMPTROLLER_CONTROL_URL": "ftp://x"}, "COMPTROLLER_CONTROL_URL: an http://"),
        ({"COMPTROLLER_NODE": "Node A"}, "COMPTROLLER_NODE: bad name"),
        ({"COMPTROLLER_CONTEXT_WINDOW": "many"}, "COMPTROLLER_CONTEXT_WINDOW: a number"),
        ({"COMPTROLLER_CONTEXT_WINDOW": "0"}, "COMPTROLLER_CONTEXT_WINDOW: must be at least 1"),
        ({"COMPTROLLER_PAGES": "/a b"}, "COMPTROLLER_PAGES: not a path"),
    ],
)
def test_what_cannot_be_used_is_named(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(NEEDED | variables)
