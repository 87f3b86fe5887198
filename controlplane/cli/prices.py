"""`comptroller prices`: prices of the installation of the data directory."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(no_args_is_help=True, help="Work on prices.", rich_markup_mode=None)


@app.callback()
def _prices() -> None:
    """Work on prices."""


@app.command()
def rerate(
    model: Annotated[str, typer.Option(help="The model; a * may end the name.")],
    since: Annotated[str, typer.Option(help="Calls that began then or later (ISO 8601).")],
    until: Annotated[str, typer.Option(help="And before this instant.")],
    provider: Annotated[str, typer.Option(help="Only calls of this provider.")] = "",
    price_version: Annotated[
        str, typer.Option(help="The id of a price version; default: what is valid now.")
    ] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Book it; else it is only told.")] = False,
    reason: Annotated[str, typer.Option(help="Why; needed with --apply.")] = "",
    organization: Annotated[str, typer.Option(help="Its slug, where there are several.")] = "",
    data_dir: Annotated[
        Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
    ] = Path(".comptroller"),
    wanted: Annotated[
        Format, typer.Option("--format", help="How to write the answer.")
    ] = Format.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Charge recorded calls again at the prices that are valid now, and book the differences.

    Tells what would change: calls, models, balances. With --apply it is booked, as corrections that
    name the call and both prices. To run it again books nothing more.
    """
    wish: dict[str, Any] = {
        "model": model,
        "provider": provider,
        "since": since,
        "until": until,
        "apply": apply,
        "reason": reason,
    }
    if price_version:
        wish["price_version"] = price_version
    form = Format.JSON if as_json else wanted
    arguments = ["rerate_usage", json.dumps(wish), "--format", form.value]
    manage(data_dir, [*arguments, f"--organization={organization}"])
