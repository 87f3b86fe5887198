"""The sidecar's configuration as values that never change; a reload makes others."""

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from enforcement.rules.dialects import BY_PATH, Family
from enforcement.rules.margins import Stop
from enforcement.rules.modelroutes import ModelRoute
from enforcement.sidecar.tls import SYSTEM, ClientTls, ServerTls

TOKEN_ENV = "COMPTROLLER_SIDECAR_TOKEN"  # noqa: S105 -- the name of a variable, not a secret
CONTROL_ENV = "COMPTROLLER_CONTROL_URL"
KEY_ENV = "COMPTROLLER_UPSTREAM_KEY_"

_PATH = re.compile(r"/[A-Za-z0-9._/-]{1,200}")
_OURS = ("/healthz", "/readyz", "/metrics", "/v1/models", "/api/tags", "/api/version", "/api/show")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class ConfigError(ValueError):
    """A setting that cannot be used; the sentence names it."""


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """A serving node or paid API. `key` is the bearer token that it wants, if any.

    `models` are what it may be asked for, by the names that callers, prices and budgets use; empty:
    all that it lists. `renamed` gives the names by which it knows them, where those differ.
    `concurrency` is how many calls it gets at once: `queue` more wait for at most
    `queue_timeout` seconds, agents in turn.
    """

    name: str
    base_url: str
    host: str
    port: int
    path: str = ""  # in front of /v1/…
    tls: bool = False
    key: str = field(default="", repr=False)
    provider: str = ""
    dialects: frozenset[Family] = frozenset()  # what it speaks; empty: what its engine does
    passes: tuple[str, ...] = ()  # paths that it gets although nobody here understands them
    local: bool = True  # ours: probed; else a paid API, judged by its answers alone
    models: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()  # our name, its name
    context_window: int | None = None  # tokens, where the engine does not tell
    concurrency: int | None = None
    concurrency_per_agent: int | None = None
    queue: int = 64
    queue_timeout: float = 10.0
    batch_queue_timeout: float = 120.0
    weight: int = 1  # takes so many times the load of a node of weight 1
    priority: bool = False  # whether the engine takes a priority with each request
    failures: int = 5  # in a row, until it is left alone
    rest: float = 10.0  # seconds that it is left alone then
    encrypted: ClientTls = SYSTEM


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that the sidecar can be told. Durations in seconds."""

    upstreams: tuple[UpstreamConfig, ...]
    control_url: str
    token: str = field(repr=False)
    spool_dir: Path
    listen_host: str = "127.0.0.1"
    listen_port: int = 8400
    book: str = ""
    workers: int = 1
    worker: int = 0  # which of them this is
    admin_listen: str = ""
    tls: ServerTls | None = None
    control_tls: ClientTls = SYSTEM
    routes: tuple[ModelRoute, ...] = ()
    attempts: int = 2  # of a call, each on another node, before anything reached its caller
    context_window: int | None = None
    accelerators: int = 1
    max_tool_calls: int = 32
    default_max_output_tokens: int = 4096
    floor_output_tokens: int = 16
    metered_slice_tokens: int = 64
    metered_margin_tokens: int | None = None  # declared; what was measured wins if it is more
    stops: tuple[Stop, ...] = ()  # how engines were seen to stop
    max_body_bytes: int = 8 * 1024 * 1024
    max_answer_bytes: int = 64 * 1024 * 1024
    head_timeout: float = 10.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    request_timeout: float = 600.0
    upstream_connect_timeout: float = 5.0
    upstream_head_timeout: float = 300.0
    upstream_idle_timeout: float = 120.0
    upstream_keepalive: float = 2.5
    grant_timeout: float = 2.0
    drain_timeout: float = 2.0  # longer than engines take to stop: else all that is held is charged
    shutdown_timeout: float = 10.0
    hang_timeout: float = 10.0  # without a turn of its loop, until one of several workers is killed
    probe_interval: float = 30.0
    heartbeat: float = 2.0
    otlp_endpoint: str = ""  # where spans and metrics go; nowhere by default
    spool_quota_bytes: int = 1024 * 1024 * 1024
    spool_segment_bytes: int = 128 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse values that make no sense together or alone."""
        if not self.upstreams:
            raise ConfigError("--upstream: at least one is needed, here or in --config")
        names = [upstream.name for upstream in self.upstreams]
        if len(set(names)) != len(names):
            raise ConfigError(f"--upstream: names must differ: {', '.join(names)}")
        check_routes(self.routes, names)
        for upstream in self.upstreams:
            if upstream.concurrency is not None and upstream.concurrency < self.workers:
                raise ConfigError(
                    f"upstream {upstream.name!r}: concurrency must be at least that of workers"
                )
        if not self.token:
            raise ConfigError(f"--token: none given, nor {TOKEN_ENV} or {TOKEN_ENV}_FILE")
        _check_url("--control-url", self.control_url)
        if self.otlp_endpoint:
            _check_url("--otlp-endpoint", self.otlp_endpoint)
            _check_otel()
        for flag, value in (
            ("--workers", self.workers),
            ("--attempts", self.attempts),
            ("--context-window", self.context_window),
            ("--accelerators", self.accelerators),
            ("--max-tool-calls", self.max_tool_calls),
            ("--default-max-output-tokens", self.default_max_output_tokens),
            ("--floor-output-tokens", self.floor_output_tokens),
            ("--metered-slice", self.metered_slice_tokens),
            ("--metered-margin", self.metered_margin_tokens),
            ("--max-body-bytes", self.max_body_bytes),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"{flag}: must be at least 1, not {value}")
        for flag, seconds in (
            ("--request-timeout", self.request_timeout),
            ("--grant-timeout", self.grant_timeout),
            ("--upstream-head-timeout", self.upstream_head_timeout),
            ("--upstream-idle-timeout", self.upstream_idle_timeout),
            ("--shutdown-timeout", self.shutdown_timeout),
            ("--hang-timeout", self.hang_timeout),
        ):
            if not 0.1 <= seconds <= 86_400:
                raise ConfigError(f"{flag}: must be 0.1 to 86400 seconds, not {seconds}")


def check_routes(routes: Sequence[ModelRoute], upstreams: Sequence[str]) -> None:
    """Refuse routes that lead nowhere, or to each other.

    Raises:
        ConfigError: names the route.
    """
    names = [route.model for route in routes]
    for route in routes:
        where = f"route {route.model!r}"
        if not route.model or names.count(route.model) > 1:
            raise ConfigError(f"{where}: give every route a name of its own")
        if not route.targets:
            raise ConfigError(f"{where}: it has no targets")
        for target in route.targets:
            unknown = sorted(set(target.upstreams) - set(upstreams))
            if unknown:
                raise ConfigError(f"{where}: no upstream is named {unknown[0]!r}")
            if not target.model or target.model in names:
                raise ConfigError(f"{where}: a target needs a model, not a route")
            if target.up_to_prompt_tokens is not None and target.up_to_prompt_tokens < 1:
                raise ConfigError(f"{where}: up_to_prompt_tokens must be at least 1")


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`; the host may be an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen: HOST:PORT expected, not {text!r}")
    return host.strip("[]"), int(port)


def parse_upstream(text: str, *, index: int, environ: Mapping[str, str]) -> UpstreamConfig:
    """`URL` or `name=URL`. A trailing `/v1` is understood, since clients write it."""
    name, equals, url = text.partition("=")
    if not equals or "://" in name:
        name, url = f"node-{index}", text
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--upstream: bad name {name!r}: lower-case letters, digits, . _ -")
    parts = _check_url("--upstream", url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    key_name = KEY_ENV + re.sub(r"[^A-Z0-9]", "_", name.upper())
    return UpstreamConfig(
        name=name,
        base_url=f"{parts.scheme}://{parts.netloc}{path}",
        host=parts.hostname or "",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        path=path,
        tls=parts.scheme == "https",
        key=_printable(key_name, environ.get(key_name, "")),
    )


def with_dialects(
    upstreams: Sequence[UpstreamConfig], declared: Sequence[str]
) -> tuple[UpstreamConfig, ...]:
    """The nodes with the dialects that `NAME=DIALECT,…` declares for them."""
    found = {upstream.name: upstream for upstream in upstreams}
    for text in declared:
        name, _, listed = text.partition("=")
        if name not in found:
            raise ConfigError(f"--dialects: no --upstream is named {name!r}")
        try:
            spoken = frozenset(Family(item.strip()) for item in listed.split(","))
        except ValueError as error:
            known = ", ".join(Family)
            raise ConfigError(f"--dialects: {text!r}: must be some of {known}") from error
        found[name] = replace(found[name], dialects=spoken)
    return tuple(found[upstream.name] for upstream in upstreams)


def with_passed(
    upstreams: Sequence[UpstreamConfig], declared: Sequence[str]
) -> tuple[UpstreamConfig, ...]:
    """The nodes with the routes that `NAME=/PATH,…` passes on to them."""
    found = {upstream.name: upstream for upstream in upstreams}
    for text in declared:
        name, _, listed = text.partition("=")
        if name not in found:
            raise ConfigError(f"--pass: no --upstream is named {name!r}")
        paths = tuple(path.strip() for path in listed.split(","))
        check_passed(f"--pass {text!r}", paths)
        found[name] = replace(found[name], passes=(*found[name].passes, *paths))
    return tuple(found[upstream.name] for upstream in upstreams)


def check_passed(where: str, paths: Sequence[str]) -> None:
    """Refuse paths that are none, or whose dialect is known: those are never passed unread."""
    for path in paths:
        if not _PATH.fullmatch(path) or "//" in path or "/." in path:
            raise ConfigError(f"{where}: a path such as /v1/rerank expected, not {path!r}")
        if path.encode() in BY_PATH or path in _OURS:
            raise ConfigError(f"{where}: {path} is understood here and cannot be passed unread")


def read_token(token: str | None, token_file: Path | None, environ: Mapping[str, str]) -> str:
    """The sidecar's own bearer token, from the first place that has one."""
    if token:
        return _printable("--token", token)
    path = token_file or environ.get(f"{TOKEN_ENV}_FILE")
    if path:
        return read_secret("--token-file", path)
    return _printable(TOKEN_ENV, environ.get(TOKEN_ENV, ""))


def read_secret(name: str, path: Path | str) -> str:
    """What a file holds, without the white space around it."""
    try:
        return _printable(name, Path(path).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{name}: {why}: {path}") from error


def environment() -> Mapping[str, str]:
    return os.environ


def _check_url(flag: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{flag}: not a URL: {url!r}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"{flag}: an http:// or https:// URL expected, not {url!r}")
    if parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{flag}: no credentials, query or fragment allowed: {url!r}")
    return parts


def _check_otel() -> None:
    try:
        found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError("--otlp-endpoint: needs the extra: pip install 'comptroller[otel]'")


def _printable(name: str, value: str) -> str:
    if value and not (value.isascii() and value.isprintable()):
        raise ConfigError(f"{name}: must be printable ASCII")
    return value
