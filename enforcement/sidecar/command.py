"""`comptroller sidecar …`: flags in, exit code out. Whatever is heavy is imported late."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="sidecar",
    help="Enforce budgets next to a serving node.",
    no_args_is_help=True,
    add_completion=False,
)

Upstreams = Annotated[
    list[str], typer.Option("--upstream", help="A serving node: URL or name=URL. May be repeated.")
]
Dialects = Annotated[
    list[str] | None,
    typer.Option(
        "--dialects",
        help="What a node speaks, where its engine does not tell: NAME=DIALECT,… of openai,"
        " responses, anthropic, ollama, llama.cpp. May be repeated.",
    ),
]
ControlUrl = Annotated[
    str, typer.Option(envvar="COMPTROLLER_CONTROL_URL", help="Address of the control plane.")
]
SpoolDir = Annotated[
    Path, typer.Option(help="Directory of the journal. It must outlive the process.")
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
    int, typer.Option(help="Tokens held beyond what was produced, for metered budgets.")
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


@app.callback()
def sidecar() -> None:
    """Enforce budgets next to a serving node."""


@app.command()
def run(
    *,
    upstream: Upstreams,
    control_url: ControlUrl,
    spool_dir: SpoolDir,
    dialects: Dialects = None,
    listen: Listen = "127.0.0.1:8400",
    token: Token = None,
    token_file: TokenFile = None,
    book: BookName = "",
    context_window: Window = None,
    accelerators: Accelerators = 1,
    max_tool_calls: ToolCalls = 32,
    default_max_output_tokens: DefaultOutput = 4096,
    floor_output_tokens: Floor = 16,
    metered_slice: Slice = 64,
    metered_margin: Margin = 64,
    max_body_bytes: BodyBytes = 8 * 1024 * 1024,
    grant_timeout: GrantTimeout = 2.0,
    request_timeout: RequestTimeout = 600.0,
    upstream_head_timeout: HeadTimeout = 300.0,
    upstream_idle_timeout: IdleTimeout = 120.0,
    shutdown_timeout: ShutdownTimeout = 10.0,
    otlp_endpoint: OtlpEndpoint = "",
) -> None:
    """Listen, hold, forward, meter, settle."""
    _serve(
        {
            "listen": listen,
            "upstream": upstream,
            "dialects": dialects or [],
            "token": token,
            "token_file": token_file,
        },
        control_url=control_url,
        spool_dir=spool_dir,
        book=book,
        context_window=context_window,
        accelerators=accelerators,
        max_tool_calls=max_tool_calls,
        default_max_output_tokens=default_max_output_tokens,
        floor_output_tokens=floor_output_tokens,
        metered_slice_tokens=metered_slice,
        metered_margin_tokens=metered_margin,
        max_body_bytes=max_body_bytes,
        grant_timeout=grant_timeout,
        request_timeout=request_timeout,
        upstream_head_timeout=upstream_head_timeout,
        upstream_idle_timeout=upstream_idle_timeout,
        shutdown_timeout=shutdown_timeout,
        otlp_endpoint=otlp_endpoint,
    )


def _serve(raw: dict[str, Any], **settings: Any) -> None:
    """Make the configuration and run; `raw` are the flags that need parsing."""
    from enforcement.sidecar import config  # noqa: PLC0415 -- slow import

    environ = config.environment()
    try:
        host, port = config.parse_listen(raw["listen"])
        upstreams = [
            config.parse_upstream(text, index=index, environ=environ)
            for index, text in enumerate(raw["upstream"])
        ]
        found = config.Config(
            upstreams=config.with_dialects(upstreams, raw["dialects"]),
            token=config.read_token(raw["token"], raw["token_file"], environ),
            listen_host=host,
            listen_port=port,
            **settings,
        )
    except config.ConfigError as error:
        typer.echo(f"comptroller sidecar: {error}", err=True)
        raise typer.Exit(2) from error
    from enforcement.sidecar.service import serve  # noqa: PLC0415 -- slow import

    raise typer.Exit(serve(found))
