"""`comptroller reconcile`: compare what was metered with what engines and providers counted."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(rich_markup_mode=None)

Organization = Annotated[str, typer.Option(help="Its slug, where there are several.")]
DataDir = Annotated[
    Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
]
Wanted = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Account = Annotated[str, typer.Option(help="Whose bill, where there are several accounts.")]
DEFAULT_DATA_DIR = Path(".comptroller")


@app.callback(invoke_without_command=True)
def reconcile(
    context: typer.Context,
    hours: Annotated[int, typer.Option(min=1, max=744, help="How far back.")] = 24,
    until: Annotated[str, typer.Option(help="The end (ISO 8601); default: now.")] = "",
    organization: Organization = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Metered tokens beside engine counters and provider bills, by node, model and hour, now.

    An hour in which an engine was restarted or not read is unknown. Exits 1 when an hour drifts by
    more than COMPTROLLER_DRIFT_PER_MILLE of the larger count.
    """
    if context.invoked_subcommand is not None:
        return
    form = Format.JSON if as_json else wanted
    arguments = ["reconcile_usage", f"--hours={hours}", f"--until={until}"]
    manage(data_dir, [*arguments, f"--organization={organization}", f"--format={form.value}"])


@app.command(name="import-bill")
def import_bill(
    file: Annotated[
        str, typer.Argument(help="JSON of a usage or cost API, or a CSV table; - for stdin.")
    ],
    provider: Annotated[
        str, typer.Option(help="As calls name it, where that is not the bill's own name.")
    ] = "",
    account: Account = "",
    organization: Organization = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Keep a bill of OpenAI or Anthropic, or a table of your own, beside what was metered.

    What it says of a time replaces what an earlier bill said of that time.
    """
    form = Format.JSON if as_json else wanted
    arguments = ["import_bill", f"--provider={provider}", f"--account={account}"]
    arguments += [f"--organization={organization}", f"--format={form.value}"]
    manage(data_dir, [*arguments, "--", file])


@app.command(name="fetch-bill")
def fetch_bill(
    provider: Annotated[str, typer.Argument(help="openai or anthropic.")],
    days: Annotated[int, typer.Option(min=1, max=31, help="How far back.")] = 2,
    base_url: Annotated[str, typer.Option(help="A gateway in front of the provider.")] = "",
    account: Account = "",
    organization: Organization = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Ask the usage and cost APIs of OpenAI or Anthropic, and keep the bill.

    The key is an administrator's: COMPTROLLER_OPENAI_ADMIN_KEY or COMPTROLLER_ANTHROPIC_ADMIN_KEY.
    """
    form = Format.JSON if as_json else wanted
    arguments = ["fetch_bill", f"--days={days}", f"--base-url={base_url}", f"--account={account}"]
    arguments += [f"--organization={organization}", f"--format={form.value}"]
    manage(data_dir, [*arguments, "--", provider])
