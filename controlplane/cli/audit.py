"""`comptroller audit`: check that the ledger is what was written."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(no_args_is_help=True, help="Check the ledger.", rich_markup_mode=None)


@app.callback()
def _audit() -> None:
    """Check the ledger."""


@app.command()
def verify(
    organization: Annotated[str, typer.Option(help="The slug of one; default: all.")] = "",
    head: Annotated[
        str, typer.Option(help="A digest that was kept elsewhere: it must be in the chain.")
    ] = "",
    data_dir: Annotated[
        Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
    ] = Path(".comptroller"),
    wanted: Annotated[
        Format, typer.Option("--format", help="How to write the answer.")
    ] = Format.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Compute all balances again from their transfers, and check the hash chain over those.

    Exits 1 when a balance, a transfer or a seal is not what was written. Keep the printed heads
    elsewhere: with --head they prove that nothing before them was rewritten.
    """
    form = Format.JSON if as_json else wanted
    arguments = ["verify_ledger", f"--organization={organization}", f"--head={head}"]
    manage(data_dir, [*arguments, f"--format={form.value}"])
