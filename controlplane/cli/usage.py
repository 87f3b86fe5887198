"""`comptroller usage`: what was used, of the installation of the data directory."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(
    no_args_is_help=True, help="Ask what was used, export and archive it.", rich_markup_mode=None
)

Since = Annotated[str, typer.Option("--from", help="The first day (YYYY-MM-DD, UTC).")]
Until = Annotated[str, typer.Option("--to", help="The day after the last; default: tomorrow.")]
Organization = Annotated[str, typer.Option(help="Its slug, where there are several.")]
DataDir = Annotated[
    Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
]
ArchiveDir = Annotated[str, typer.Option("--archive-dir", help="Default: COMPTROLLER_ARCHIVE_DIR.")]
Wanted = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Short for --format json.")]


class Spec(StrEnum):
    FOCUS_1_3 = "focus-1.3"
    FOCUS_1_4 = "focus-1.4"


class FileKind(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"


DEFAULT_DATA_DIR = Path(".comptroller")


@app.callback()
def _usage() -> None:
    """Ask what was used."""


@app.command()
def query(
    group_by: Annotated[
        str,
        typer.Option(
            help="At most two: team, project, agent, user, model, provider, node, skill, endpoint,"
            " tier, ending, tag:NAME, session, and one of hour, day, week."
        ),
    ] = "model",
    since: Since = "",
    until: Until = "",
    where: Annotated[
        list[str] | None, typer.Option("--filter", help="NAME=VALUE. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most groups.")] = 100,
    organization: Organization = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: Annotated[
        Format, typer.Option("--format", help="How to write the answer.")
    ] = Format.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Calls, tokens and charges of whole days (default: the last 30), the dearest groups first."""
    form = Format.JSON if as_json else wanted
    arguments = ["query_usage", f"--group-by={group_by}", f"--limit={limit}"]
    arguments += [f"--filter={one}" for one in where or ()]
    arguments += [f"--since={since}", f"--until={until}", f"--format={form.value}"]
    manage(data_dir, [*arguments, f"--organization={organization}"])


@app.command()
def archive(
    keep_days: Annotated[
        int, typer.Option(min=0, help="At least 35; default: COMPTROLLER_USAGE_KEEP_DAYS.")
    ] = 0,
    archive_dir: ArchiveDir = "",
    dry_run: Annotated[bool, typer.Option(help="Only say which days are due.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Move old days of usage events out of the database into Parquet files.

    Each file is read back and compared with the table, row by row, before the table lets go of the
    day. Stop it at any time, run it again: a day is in the table or in its archive, never in none.
    """
    form = Format.JSON if as_json else wanted
    arguments = ["archive_usage", f"--keep-days={keep_days}", f"--archive-dir={archive_dir}"]
    arguments += ["--dry-run"] if dry_run else []
    manage(data_dir, [*arguments, f"--format={form.value}"])


@app.command()
def find(
    event: Annotated[str, typer.Argument(help="The id of a usage event.")],
    organization: Organization = "",
    archive_dir: ArchiveDir = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Tell where a usage event stands, in the database or in which archive, and what it says."""
    form = Format.JSON if as_json else wanted
    arguments = ["find_usage", f"--organization={organization}", f"--archive-dir={archive_dir}"]
    manage(data_dir, [*arguments, f"--format={form.value}", "--", event])


@app.command()
def export(
    spec: Annotated[
        Spec, typer.Option("--format", help="Which version of the FOCUS specification.")
    ] = Spec.FOCUS_1_4,
    output: Annotated[
        FileKind, typer.Option(help="parquet needs the extra `archive`.")
    ] = FileKind.CSV,
    since: Since = "",
    until: Until = "",
    file: Annotated[str, typer.Option(help="Where to write it; - is standard output.")] = "-",
    organization: Organization = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Charges of whole days (default: the last 30) as FOCUS rows, hour by hour."""
    arguments = ["export_usage", f"--spec={spec.value}", f"--output={output.value}"]
    arguments += [f"--since={since}", f"--until={until}", f"--file={file}"]
    manage(data_dir, [*arguments, f"--organization={organization}"])
