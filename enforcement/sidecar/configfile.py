"""The configuration file and the flags, read into one `Config`, as often as asked.

TOML. Names at the top are those of `Config`; `[[upstream]]`, `[tls]` and `[control_tls]` are tables
of their own. A flag that was given wins over the file. What nobody knows is refused: a misspelt
limit must not be silently no limit. Paths are relative to the file. Secrets stand in other files or
in the environment, never here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.dialects import Family
from enforcement.rules.modelroutes import Choose, Lane, ModelRoute, Target
from enforcement.sidecar.config import (
    Config,
    ConfigError,
    UpstreamConfig,
    check_passed,
    parse_listen,
    parse_upstream,
    read_secret,
    read_token,
    with_dialects,
    with_passed,
)
from enforcement.sidecar.margins import read_stops, stops_path
from enforcement.sidecar.tls import ClientTls, Seal, ServerTls, TlsError, seal_of

_OURS = frozenset(  # not for the file as they are: made of other settings, or of this worker
    {
        *("upstreams", "token", "listen_host", "listen_port", "tls", "control_tls"),
        *("worker", "control_url", "spool_dir", "routes", "stops"),
    }
)
_SECONDS = ("queue_timeout", "batch_queue_timeout", "rest")
_AS_WRITTEN = (
    *("local", "provider", "context_window", "concurrency", "concurrency_per_agent", "queue"),
    *("queue_timeout", "batch_queue_timeout", "weight", "priority", "failures", "rest"),
)


class ClientTlsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True


class ServerTlsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cert_file: str
    key_file: str = ""
    client_ca_file: str = ""


class UpstreamTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `UpstreamConfig`. `models`: names, or a table of our names and its names."""

    name: str
    url: str
    local: bool = True
    provider: str = ""
    key_file: str = ""
    key_env: str = ""
    dialects: list[Family] = []
    passes: list[str] = []
    models: list[str] | dict[str, str] = []
    context_window: int | None = None
    concurrency: int | None = None
    concurrency_per_agent: int | None = None
    queue: int = 64
    queue_timeout: float = 10.0
    batch_queue_timeout: float = 120.0
    weight: int = 1
    priority: bool = False
    failures: int = 5
    rest: float = 10.0
    tls: ClientTlsTable = ClientTlsTable()


class TargetTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    upstreams: list[str] = []
    up_to_prompt_tokens: int | None = None
    lane: Lane | None = None


class RouteTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `enforcement.rules.modelroutes`."""

    model: str
    targets: list[TargetTable]
    choose: Choose = Choose.ORDER


_settings = msgspec.defstruct(
    "File",
    [
        ("listen", str | None, None),
        ("control_url", str | None, None),
        ("spool_dir", str | None, None),
        ("token_file", str | None, None),
        ("upstream", list[UpstreamTable], msgspec.field(default_factory=list)),
        ("route", list[RouteTable], msgspec.field(default_factory=list)),
        ("tls", ServerTlsTable | None, None),
        ("control_tls", ClientTlsTable, ClientTlsTable()),
        *(
            (field.name, field.type, msgspec.UNSET)
            for field in dataclasses.fields(Config)
            if field.name not in _OURS
        ),
    ],
    kw_only=True,
    forbid_unknown_fields=True,
)


class Source:
    """Flags, environment and file of one sidecar.

    `flags` are the ones that were given, by the names of `Config`, but for `listen`, `upstream`
    and `dialects` (texts), `token` and `token_file`.
    """

    def __init__(
        self, flags: Mapping[str, Any], *, environ: Mapping[str, str], path: Path | None = None
    ) -> None:
        self.path = path
        self._flags = flags
        self._environ = environ
        self._files: list[str] = []

    def load(self) -> Config:
        """Read everything anew.

        Raises:
            ConfigError: something cannot be used.
        """
        files: list[str] = []
        said: dict[str, Any] = {}
        if self.path is not None:
            files.append(str(self.path))
            said = self._read(self.path, files)
        flags = dict(self._flags)
        upstreams = [
            parse_upstream(text, index=index, environ=self._environ)
            for index, text in enumerate(flags.pop("upstream", ()))
        ]
        nodes = (*upstreams, *said.pop("upstreams", ()))
        spoken = with_dialects(nodes, flags.pop("dialects", ()))
        said["upstreams"] = with_passed(spoken, flags.pop("passed", ()))
        said |= flags
        host, port = parse_listen(said.pop("listen", "127.0.0.1:8400"))
        token = read_token(said.pop("token", None), said.pop("token_file", None), self._environ)
        for name in ("control_url", "spool_dir"):
            if name not in said:
                raise ConfigError(f"--{name.replace('_', '-')}: missing, here and in --config")
        spool_dir = Path(said["spool_dir"])
        self._files = [*files, str(stops_path(spool_dir))]
        said["stops"] = read_stops(spool_dir)
        return Config(token=token, listen_host=host, listen_port=port, **said)

    def seal(self) -> Seal:
        """What the file, those that it names, and what doctor measured look like now."""
        return seal_of(self._files)

    def _read(self, path: Path, files: list[str]) -> dict[str, Any]:
        try:
            found = msgspec.toml.decode(path.read_bytes(), type=_settings)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
        try:
            return _Reader(path, files, self._environ).settings(found)
        except TlsError as error:
            raise ConfigError(f"{path}: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


class _Reader:
    """One reading of one file; `files` collects the paths that it names."""

    def __init__(self, path: Path, files: list[str], environ: Mapping[str, str]) -> None:
        self._base = path.parent
        self._files = files
        self._environ = environ

    def settings(self, found: Any) -> dict[str, Any]:
        said: dict[str, Any] = {
            name: value
            for name, value in msgspec.structs.asdict(found).items()
            if value is not msgspec.UNSET and value is not None
        }
        said["upstreams"] = tuple(self._upstream(table) for table in said.pop("upstream"))
        said["routes"] = tuple(_route(table) for table in said.pop("route"))
        said["control_tls"] = self._client_tls(found.control_tls)
        if found.tls is not None:
            said["tls"] = self._server_tls(found.tls)
        for name in ("spool_dir", "token_file"):
            if name in said:
                said[name] = Path(self._path(said[name], watched=name == "token_file"))
        return said

    def _upstream(self, table: UpstreamTable) -> UpstreamConfig:
        where = f"upstream {table.name!r}"
        basic = parse_upstream(f"{table.name}={table.url}", index=0, environ=self._environ)
        for name in ("weight", "failures"):
            _check(where, name, getattr(table, name), least=1)
        _check(where, "queue", table.queue, least=0)
        check_passed(f"{where}: passes", table.passes)
        for name in ("context_window", "concurrency", "concurrency_per_agent"):
            if (value := getattr(table, name)) is not None:
                _check(where, name, value, least=1)
        for name in _SECONDS:
            if not 0.1 <= getattr(table, name) <= 3600:
                raise ConfigError(f"{where}: {name} must be 0.1 to 3600 seconds")
        names = table.models if isinstance(table.models, dict) else {m: m for m in table.models}
        if not all(ours and theirs for ours, theirs in names.items()):
            raise ConfigError(f"{where}: a model's name is empty")
        return replace(
            basic,
            key=self._key(table, where) or basic.key,
            dialects=frozenset(table.dialects),
            passes=tuple(table.passes),
            models=tuple(names),
            renamed=tuple((ours, theirs) for ours, theirs in names.items() if ours != theirs),
            encrypted=self._client_tls(table.tls),
            **{name: getattr(table, name) for name in _AS_WRITTEN},
        )

    def _key(self, table: UpstreamTable, where: str) -> str:
        if table.key_file and table.key_env:
            raise ConfigError(f"{where}: key_file and key_env exclude each other")
        if table.key_file:
            return read_secret(f"{where}: key_file", self._path(table.key_file))
        if table.key_env:
            key = self._environ.get(table.key_env, "")
            if not key:
                raise ConfigError(f"{where}: key_env: {table.key_env} is not set")
            return key
        return ""

    def _client_tls(self, table: ClientTlsTable) -> ClientTls:
        paths = self._paths(table.ca_file, table.cert_file, table.key_file)
        made = ClientTls(
            ca_file=paths[0],
            cert_file=paths[1],
            key_file=paths[2],
            server_name=table.server_name,
            verify=table.verify,
            files=seal_of(filter(None, paths)),
        )
        made.context()
        return made

    def _server_tls(self, table: ServerTlsTable) -> ServerTls:
        paths = self._paths(table.cert_file, table.key_file, table.client_ca_file)
        made = ServerTls(
            cert_file=paths[0],
            key_file=paths[1],
            client_ca_file=paths[2],
            files=seal_of(filter(None, paths)),
        )
        made.context()
        return made

    def _paths(self, *names: str) -> Sequence[str]:
        return [self._path(name) if name else "" for name in names]

    def _path(self, name: str, *, watched: bool = True) -> str:
        path = str(self._base / name)
        if watched:
            self._files.append(path)
        return path


def _route(table: RouteTable) -> ModelRoute:
    targets = tuple(
        Target(target.model, tuple(target.upstreams), target.up_to_prompt_tokens, target.lane)
        for target in table.targets
    )
    return ModelRoute(table.model, targets, table.choose)


def _check(where: str, name: str, value: int, *, least: int) -> None:
    if value < least:
        raise ConfigError(f"{where}: {name} must be at least {least}, not {value}")
