"""`comptroller reconcile`: compare what was metered with what engines counted."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(rich_markup_mode=None)


@app.command()
def reconcile(
    hours: Annotated[int, typer.Option(min=1, max=744, help="How far back.")] = 24,
    until: Annotated[str, typer.Option(help="The end (ISO 8601); default: now.")] = "",
    organization: Annotated[str, typer.Option(help="Its slug, where there are several.")] = "",
    data_dir: Annotated[
        Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
    ] = Path(".comptroller"),
    wanted: Annotated[
        Format, typer.Option("--format", help="How to write the answer.")
    ] = Format.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Metered tokens beside the engines' own counters, by node, model and hour, computed now.

    An hour in which an engine was restarted or not read is unknown. Exits 1 when an hour drifts by
    more than COMPTROLLER_DRIFT_PER_MILLE of the larger count.
    """
    form = Format.JSON if as_json else wanted
    arguments = ["reconcile_usage", f"--hours={hours}", f"--until={until}"]
    manage(data_dir, [*arguments, f"--organization={organization}", f"--format={form.value}"])
