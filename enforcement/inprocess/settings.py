"""The in-process mode's configuration: environment variables, read once.

`COMPTROLLER_CONTROL_URL`, `COMPTROLLER_SIDECAR_TOKEN` (or `…_FILE`) and `COMPTROLLER_SPOOL_DIR` are
needed. Each process of the server has a book of its own, in `worker-N` below the spool directory.
"""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enforcement.sidecar.config import (
    CONTROL_ENV,
    KEY_ENV,
    Config,
    ConfigError,
    UpstreamConfig,
    read_token,
)
from enforcement.sidecar.margins import read_stops

PREFIX = "COMPTROLLER_"
SPOOL_ENV = "COMPTROLLER_SPOOL_DIR"
# Pages of the engine that cost nothing and anybody may read.
PAGES = ("/health", "/ping", "/version", "/load", "/metrics")
_PATH = re.compile(r"/[A-Za-z0-9\-._~/]*")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_FLAG = re.compile(r"--([a-z-]+)")

# Variable behind the prefix → field of `Config`.
_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "BOOK": ("book", str),
    "CONTEXT_WINDOW": ("context_window", int),
    "ACCELERATORS": ("accelerators", int),
    "MAX_TOOL_CALLS": ("max_tool_calls", int),
    "DEFAULT_MAX_OUTPUT_TOKENS": ("default_max_output_tokens", int),
    "FLOOR_OUTPUT_TOKENS": ("floor_output_tokens", int),
    "METERED_SLICE": ("metered_slice_tokens", int),
    "METERED_MARGIN": ("metered_margin_tokens", int),
    "MAX_BODY_BYTES": ("max_body_bytes", int),
    "GRANT_TIMEOUT": ("grant_timeout", float),
    "REQUEST_TIMEOUT": ("request_timeout", float),
    "SHUTDOWN_TIMEOUT": ("shutdown_timeout", float),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the middleware was told. `pages`: paths that GET requests reach unchecked."""

    config: Config
    pages: frozenset[str]

    def for_worker(self, number: int) -> Config:
        """The configuration of one process among several."""
        book = self.config.book or socket.gethostname()
        folder = self.config.spool_dir / f"worker-{number}"
        return replace(self.config, spool_dir=folder, book=f"{book}/{number}")


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read everything.

    Raises:
        ConfigError: a variable is missing or cannot be used.
    """
    for needed in (CONTROL_ENV, SPOOL_ENV):
        if not environ.get(needed):
            raise ConfigError(f"{needed}: is needed")
    found = {
        field: _value(PREFIX + name, read, environ[PREFIX + name])
        for name, (field, read) in _SETTINGS.items()
        if environ.get(PREFIX + name)
    }
    spool_dir = Path(environ[SPOOL_ENV])
    try:
        config = Config(
            upstreams=(_node(environ),),
            control_url=environ[CONTROL_ENV],
            token=read_token(None, None, environ),
            spool_dir=spool_dir,
            stops=read_stops(spool_dir),
            **found,
        )
    except ConfigError as error:
        raise ConfigError(_FLAG.sub(_variable, str(error))) from error
    return Settings(config=config, pages=frozenset(PAGES) | _more_pages(environ))


def _node(environ: Mapping[str, str]) -> UpstreamConfig:
    """This serving node. Its URL, if told, is where the control plane reads its metrics."""
    name = environ.get("COMPTROLLER_NODE") or socket.gethostname().lower()
    if not _NAME.fullmatch(name):
        raise ConfigError(f"COMPTROLLER_NODE: bad name {name!r}: lower-case letters, digits, . _ -")
    key_name = KEY_ENV + re.sub(r"[^A-Z0-9]", "_", name.upper())
    return UpstreamConfig(
        name=name,
        base_url=environ.get("COMPTROLLER_NODE_URL", "").rstrip("/"),
        host="127.0.0.1",
        port=80,
        key=environ.get(key_name, ""),
    )


def _more_pages(environ: Mapping[str, str]) -> frozenset[str]:
    pages = frozenset(filter(None, environ.get("COMPTROLLER_PAGES", "").split(",")))
    for page in pages:
        if not _PATH.fullmatch(page):
            raise ConfigError(f"COMPTROLLER_PAGES: not a path: {page!r}")
    return pages


def _value(name: str, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise ConfigError(f"{name}: a number expected, not {text!r}") from error


def _variable(match: re.Match[str]) -> str:
    return PREFIX + match[1].upper().replace("-", "_")
