"""`comptroller ledger`: tell the ledger what it cannot see."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.budgets import manage

app = typer.Typer(
    no_args_is_help=True, help="Tell the ledger what it cannot see.", rich_markup_mode=None
)


@app.callback()
def _ledger() -> None:
    """Tell the ledger what it cannot see."""


@app.command()
def restored(
    data_dir: Annotated[
        Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
    ] = Path(".comptroller"),
) -> None:
    """Say that the database was put back to an older state: a new incarnation begins.

    A promoted replica and a recovered backup are noticed by themselves. A copy of the files that
    is started as it is looks like nothing happened: then say this before sidecars come back. Hard
    budgets grant nothing until every spool has told its leases, or is waived.
    """
    manage(data_dir, ["begin_incarnation"])
