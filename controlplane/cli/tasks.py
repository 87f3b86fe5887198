"""`comptroller tasks`: the background work of the installation of the data directory."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(no_args_is_help=True, help="Background work.", rich_markup_mode=None)

DataDir = Annotated[Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is.")]
Wanted = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Letter = Annotated[str, typer.Argument(help="Its id, as `dead` tells it.")]
Reason = Annotated[str, typer.Option(help="Why; it is written to the audit trail.")]
Organization = Annotated[str, typer.Option(help="Whose trail: its slug, where there are several.")]
HERE = Path(".comptroller")


@app.callback()
def _tasks() -> None:
    """Background work."""


@app.command("list")
def list_duties(
    data_dir: DataDir = HERE, wanted: Wanted = Format.AUTO, as_json: AsJson = False
) -> None:
    """Every duty: when it is due, what it took, how often it failed."""
    _run(data_dir, "list", form=Format.JSON if as_json else wanted)


@app.command()
def dead(data_dir: DataDir = HERE, wanted: Wanted = Format.AUTO, as_json: AsJson = False) -> None:
    """Tasks that failed for good and wait for somebody."""
    _run(data_dir, "dead", form=Format.JSON if as_json else wanted)


@app.command()
def retry(
    letter: Letter,
    reason: Reason,
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Do it again. Tasks may run twice: nothing is booked doubly."""
    form = Format.JSON if as_json else wanted
    _run(data_dir, "retry", letter, _reason(reason), _whose(organization), form=form)


@app.command()
def dismiss(
    letter: Letter,
    reason: Reason,
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Let it be."""
    form = Format.JSON if as_json else wanted
    _run(data_dir, "dismiss", letter, _reason(reason), _whose(organization), form=form)


def _reason(reason: str) -> str:
    return f"--reason={reason}"


def _whose(organization: str) -> str:
    return f"--organization={organization}"


def _run(data_dir: Path, *arguments: str, form: Format) -> None:
    manage(data_dir, ["work_on_tasks", *arguments, f"--format={form.value}"])
