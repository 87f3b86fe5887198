"""`comptroller efficiency`: what serving nodes cost, what they made of it, and for whom."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(rich_markup_mode=None)


@app.command()
def efficiency(
    hours: Annotated[int, typer.Option(min=1, max=744, help="How far back.")] = 24,
    node: Annotated[str, typer.Option(help="Only the node of this name.")] = "",
    charges: Annotated[
        bool, typer.Option("--charges", help="Who the cost was for; the lines add up to it.")
    ] = False,
    models: Annotated[bool, typer.Option("--models", help="The same by model.")] = False,
    organization: Annotated[str, typer.Option(help="Its slug, where there are several.")] = "",
    data_dir: Annotated[
        Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
    ] = Path(".comptroller"),
    wanted: Annotated[
        Format, typer.Option("--format", help="How to write the answer.")
    ] = Format.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Cost, tokens for a dollar, joules for a token, busy and idle time of each serving node.

    With --charges each node's cost by agent, model, idle time, what nobody metered and what was not
    read: the lines add up to the cost exactly.
    """
    form = Format.JSON if as_json else wanted
    arguments = ["tell_efficiency", f"--hours={hours}", f"--node={node}"]
    arguments += ["--charges"] if charges else []
    arguments += ["--models"] if models else []
    manage(data_dir, [*arguments, f"--organization={organization}", f"--format={form.value}"])
