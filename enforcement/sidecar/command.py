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


@app.callback()
def sidecar() -> None:
    """Enforce budgets next to a serving node."""


@app.command()
def run(
    *,
    upstream: Annotated[
        list[str], typer.Option(help="A serving node: URL or name=URL. May be repeated.")
    ],
    control_url: Annotated[
        str,
        typer.Option(envvar="COMPTROLLER_CONTROL_URL", help="Address of the control plane."),
    ],
    spool_dir: Annotated[
        Path, typer.Option(help="Directory of the journal. It must outlive the process.")
    ],
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:8400",
    token: Annotated[
        str | None,
        typer.Option(help="The sidecar's token; better in COMPTROLLER_SIDECAR_TOKEN[_FILE]."),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the sidecar's token.")] = None,
    book: Annotated[str, typer.Option(help="Name shown to people; host name by default.")] = "",
    context_window: Annotated[
        int | None, typer.Option(help="Tokens of context, where a node does not tell.")
    ] = None,
    default_max_output_tokens: Annotated[
        int, typer.Option(help="Output limit of requests that set none.")
    ] = 4096,
    floor_output_tokens: Annotated[
        int, typer.Option(help="The least output that an answer is clamped to.")
    ] = 16,
    metered_slice: Annotated[
        int, typer.Option(help="Tokens by which a metered hold is extended.")
    ] = 64,
    metered_margin: Annotated[
        int, typer.Option(help="Tokens held beyond what was produced, for metered budgets.")
    ] = 64,
    max_body_bytes: Annotated[int, typer.Option(help="Largest request body.")] = 8 * 1024 * 1024,
    grant_timeout: Annotated[
        float, typer.Option(help="Seconds that a request may wait for a lease or a rate.")
    ] = 2.0,
    request_timeout: Annotated[
        float, typer.Option(help="Seconds that a request may take in all.")
    ] = 600.0,
    upstream_head_timeout: Annotated[
        float, typer.Option(help="Seconds until a node must begin to answer.")
    ] = 300.0,
    upstream_idle_timeout: Annotated[
        float, typer.Option(help="Seconds that a node may fall silent in an answer.")
    ] = 120.0,
    shutdown_timeout: Annotated[
        float, typer.Option(help="Seconds that running requests have after SIGTERM.")
    ] = 10.0,
) -> None:
    """Listen, hold, forward, meter, settle."""
    from enforcement.sidecar.config import (  # noqa: PLC0415 -- slow import
        Config,
        ConfigError,
        environment,
        parse_listen,
        parse_upstream,
        read_token,
    )

    environ = environment()
    try:
        host, port = parse_listen(listen)
        settings: dict[str, Any] = {
            "upstreams": tuple(
                parse_upstream(text, index=index, environ=environ)
                for index, text in enumerate(upstream)
            ),
            "control_url": control_url,
            "token": read_token(token, token_file, environ),
            "spool_dir": spool_dir,
            "listen_host": host,
            "listen_port": port,
            "book": book,
            "context_window": context_window,
            "default_max_output_tokens": default_max_output_tokens,
            "floor_output_tokens": floor_output_tokens,
            "metered_slice_tokens": metered_slice,
            "metered_margin_tokens": metered_margin,
            "max_body_bytes": max_body_bytes,
            "grant_timeout": grant_timeout,
            "request_timeout": request_timeout,
            "upstream_head_timeout": upstream_head_timeout,
            "upstream_idle_timeout": upstream_idle_timeout,
            "shutdown_timeout": shutdown_timeout,
        }
        config = Config(**settings)
    except ConfigError as error:
        typer.echo(f"comptroller sidecar: {error}", err=True)
        raise typer.Exit(2) from error
    from enforcement.sidecar.service import serve  # noqa: PLC0415 -- slow import

    raise typer.Exit(serve(config))
