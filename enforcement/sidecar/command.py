"""`comptroller sidecar …`: flags in, exit code out. Whatever is heavy is imported late."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from enforcement.sidecar.config import Config
    from enforcement.sidecar.configfile import Source

app = typer.Typer(
    name="sidecar",
    help="Enforce budgets next to a serving node.",
    no_args_is_help=True,
    add_completion=False,
)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with these settings and more; flags win over it."),
]
Upstreams = Annotated[
    list[str] | None,
    typer.Option("--upstream", help="A serving node: URL or name=URL. May be repeated."),
]
Dialects = Annotated[
    list[str] | None,
    typer.Option(
        "--dialects",
        help="What a node speaks, where its engine does not tell: NAME=DIALECT,… of openai,"
        " responses, anthropic, ollama, llama.cpp. May be repeated.",
    ),
]
PassedRoutes = Annotated[
    list[str] | None,
    typer.Option(
        "--pass",
        help="Routes that a node gets although nobody here understands them, metered as requests:"
        " NAME=/PATH,… May be repeated.",
    ),
]
ControlUrl = Annotated[
    str, typer.Option(envvar="COMPTROLLER_CONTROL_URL", help="Address of the control plane.")
]
SpoolDir = Annotated[
    Path | None, typer.Option(help="Directory of the journal. It must outlive the process.")
]
Workers = Annotated[int, typer.Option(help="Processes that share the port, a book for each.")]
AdminListen = Annotated[
    str, typer.Option(help="HOST:PORT of worker 0 alone; worker N listens at PORT + N.")
]
Attempts = Annotated[
    int, typer.Option(help="Nodes that a call is tried on before anything reaches its caller.")
]
Token = Annotated[
    str | None,
    typer.Option(help="The sidecar's token; better in COMPTROLLER_SIDECAR_TOKEN[_FILE]."),
]
TokenFile = Annotated[Path | None, typer.Option(help="File with the sidecar's token.")]
Listen = Annotated[str, typer.Option(help="HOST:PORT to listen on.")]
BookName = Annotated[str, typer.Option(help="Name shown to people; the host's by default.")]
Window = Annotated[int | None, typer.Option(help="Tokens of context, where a node does not tell.")]
Accelerators = Annotated[int, typer.Option(help="Accelerators that a call occupies, for gpu_ms.")]
ToolCalls = Annotated[int, typer.Option(help="Most tool calls of one answer, for tool_calls.")]
DefaultOutput = Annotated[int, typer.Option(help="Output limit of requests that set none.")]
Floor = Annotated[int, typer.Option(help="The least output that an answer is clamped to.")]
Slice = Annotated[int, typer.Option(help="Tokens by which a metered hold is extended.")]
Margin = Annotated[
    int | None,
    typer.Option(
        envvar="COMPTROLLER_METERED_MARGIN",
        help="Tokens held beyond what was produced, for metered budgets, where doctor has measured"
        " less or nothing. Without either, they hold strictly.",
    ),
]
BodyBytes = Annotated[int, typer.Option(help="Largest request body.")]
GrantTimeout = Annotated[
    float, typer.Option(help="Seconds that a request may wait for a lease or a rate.")
]
RequestTimeout = Annotated[float, typer.Option(help="Seconds that a request may take in all.")]
HeadTimeout = Annotated[float, typer.Option(help="Seconds until a node must begin to answer.")]
IdleTimeout = Annotated[
    float, typer.Option(help="Seconds that a node may fall silent in an answer.")
]
OtlpEndpoint = Annotated[
    str,
    typer.Option(
        envvar="COMPTROLLER_OTLP_ENDPOINT",
        help="OpenTelemetry collector (OTLP/HTTP) that gets spans and metrics. Extra: otel.",
    ),
]
ShutdownTimeout = Annotated[
    float, typer.Option(help="Seconds that running requests have after SIGTERM.")
]
HangTimeout = Annotated[
    float, typer.Option(help="Seconds until a worker of several that hangs is killed.")
]

Measure = Annotated[
    bool, typer.Option(help="Measure how engines stop: a few short streams for each node.")
]
Answer = Annotated[
    str, typer.Option("--format", help="How to write the answer: human, agent, json, quiet.")
]


@app.callback()
def sidecar() -> None:
    """Enforce budgets next to a serving node."""


@app.command()
def run(
    context: typer.Context,
    *,
    config: ConfigFile = None,
    upstream: Upstreams = None,
    control_url: ControlUrl = "",
    spool_dir: SpoolDir = None,
    dialects: Dialects = None,
    passed: PassedRoutes = None,
    listen: Listen = "127.0.0.1:8400",
    admin_listen: AdminListen = "",
    workers: Workers = 1,
    token: Token = None,
    token_file: TokenFile = None,
    book: BookName = "",
    attempts: Attempts = 2,
    context_window: Window = None,
    accelerators: Accelerators = 1,
    max_tool_calls: ToolCalls = 32,
    default_max_output_tokens: DefaultOutput = 4096,
    floor_output_tokens: Floor = 16,
    metered_slice: Slice = 64,
    metered_margin: Margin = None,
    max_body_bytes: BodyBytes = 8 * 1024 * 1024,
    grant_timeout: GrantTimeout = 2.0,
    request_timeout: RequestTimeout = 600.0,
    upstream_head_timeout: HeadTimeout = 300.0,
    upstream_idle_timeout: IdleTimeout = 120.0,
    shutdown_timeout: ShutdownTimeout = 10.0,
    hang_timeout: HangTimeout = 10.0,
    otlp_endpoint: OtlpEndpoint = "",
) -> None:
    """Listen, hold, forward, meter, settle. SIGHUP reads --config again."""
    settings = dict(locals())  # the flags, by name
    del settings["context"], settings["config"]
    _serve(config, {name: settings[name] for name in settings if _is_given(context, name)})


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether a flag was given, on the line or by its variable."""
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


@app.command()
def doctor(
    context: typer.Context,
    *,
    config: ConfigFile = None,
    upstream: Upstreams = None,
    control_url: ControlUrl = "",
    spool_dir: SpoolDir = None,
    dialects: Dialects = None,
    token: Token = None,
    token_file: TokenFile = None,
    context_window: Window = None,
    measure: Measure = True,
    answer: Answer = "auto",
) -> None:
    """Check control plane, clock, spool and nodes; measure how the nodes' engines stop.

    Run it while the nodes are idle, and after each change of an engine. Exit codes: 0 all is well
    or only warned of, 1 a check failed.
    """
    settings = dict(locals())
    for name in ("context", "config", "measure", "answer"):
        del settings[name]
    given = {name: settings[name] for name in settings if _is_given(context, name)}
    _examine(_source_of(config, given), measure=measure, wanted=answer)


def _examine(source: "Source", *, measure: bool, wanted: str) -> None:
    import asyncio  # noqa: PLC0415 -- slow import

    from controlplane.cli.output import Format, Output  # noqa: PLC0415 -- slow import
    from enforcement.sidecar.doctor import State, examine  # noqa: PLC0415 -- slow import

    found = asyncio.run(examine(_load(source), measure=measure))
    rows = [(f.state.value, f.check, f.subject, f.detail) for f in found]
    Output(Format(wanted)).table(["state", "check", "subject", "detail"], rows)
    raise typer.Exit(1 if any(finding.state is State.FAILED for finding in found) else 0)


def _serve(path: Path | None, given: dict[str, Any]) -> None:
    """Make the configuration and run."""
    for name in ("metered_slice", "metered_margin"):
        if name in given:
            given[f"{name}_tokens"] = given.pop(name)
    source = _source_of(path, given)
    found = _load(source)
    from enforcement.sidecar.supervisor import serve  # noqa: PLC0415 -- slow import

    raise typer.Exit(serve(source, found))


def _source_of(path: Path | None, given: dict[str, Any]) -> "Source":
    from enforcement.sidecar import config, configfile  # noqa: PLC0415 -- slow import

    return configfile.Source(given, environ=config.environment(), path=path)


def _load(source: "Source") -> "Config":
    from enforcement.sidecar.config import ConfigError  # noqa: PLC0415 -- slow import

    try:
        return source.load()
    except ConfigError as error:
        typer.echo(f"comptroller sidecar: {error}", err=True)
        raise typer.Exit(2) from error
