"""The command `comptroller`. Every command imports what it needs when it runs.

So `comptroller sidecar --help` never pays for, nor needs, Django and the rest of the control plane.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from controlplane.cli.output import Exit, Format, Output, exit_code
from controlplane.launcher.errors import LauncherError

# Groups of commands that live elsewhere: name → (module with a Typer named `app`, one line of help)
LAZY_GROUPS: Mapping[str, tuple[str, str]] = {
    "sidecar": ("enforcement.sidecar.command", "Run and check the sidecar."),
    "audit": ("controlplane.cli.audit", "Check the ledger."),
    "ledger": ("controlplane.cli.ledger", "Tell the ledger what it cannot see."),
    "budgets": ("controlplane.cli.budgets", "Ask about budgets."),
    "usage": ("controlplane.cli.usage", "Ask what was used, export and archive it."),
    "prices": ("controlplane.cli.prices", "Work on prices."),
    "nodes": ("controlplane.cli.nodes", "Serving nodes, and what they cost."),
    "reconcile": ("controlplane.cli.reconcile", "Compare metered use with engine counters."),
    "tasks": ("controlplane.cli.tasks", "See to background work."),
    "efficiency": ("controlplane.cli.efficiency", "What serving nodes cost, and for whom."),
    "cards": ("controlplane.cli.cards", "Verify skill cards offline."),
}


class LazyCommands(TyperGroup):
    """Imports a group of commands only when it is the one that was called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *LAZY_GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in LAZY_GROUPS:
            return super().get_command(ctx, cmd_name)
        module, help_line = LAZY_GROUPS[cmd_name]
        if ctx.invoked_subcommand is None and cmd_name not in sys.argv[1:2]:
            return TyperGroup(name=cmd_name, help=help_line)  # only to be listed
        return typer.main.get_command(import_module(module).app)


app = typer.Typer(
    cls=LazyCommands,
    help="Budgets for AI agents that are never overspent.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept."),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
PortOption = Annotated[
    int, typer.Option("--port", min=1, max=65435, help="The web's port; the sidecar's is +100.")
]
HostOption = Annotated[str, typer.Option("--host", help="The address to listen at.")]
UpstreamOption = Annotated[
    list[str] | None,
    typer.Option("--upstream", help="[NAME=]URL of an OpenAI-compatible server. Repeatable."),
]
DEFAULT_DATA_DIR = Path(".comptroller")


def _output(wanted: Format, as_json: bool) -> Output:
    return Output(Format.JSON if as_json else wanted)


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8300,
    upstream: UpstreamOption = None,
    wanted: FormatOption = Format.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Start the control plane and a sidecar; stop them with Ctrl-C or `down`."""
    from controlplane.cli import up as command
    from controlplane.launcher.parts import Wishes

    wishes = Wishes(data=data_dir, host=host, port=port, upstreams=tuple(upstream or ()))
    raise typer.Exit(command.run_in_foreground(wishes, _output(wanted, as_json)))


@app.command()
def demo(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8300,
    check: Annotated[
        bool, typer.Option("--check", help="End after the table; fail if a figure disagrees.")
    ] = False,
    wanted: FormatOption = Format.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Start everything with a real model and five agents, and compare all figures."""
    from controlplane.cli import demo as command
    from controlplane.launcher.parts import Wishes

    wishes = Wishes(data=data_dir, host=host, port=port, demo_model=True)
    raise typer.Exit(command.play(wishes, _output(wanted, as_json), check=check))


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR, wanted: FormatOption = Format.AUTO) -> None:
    """Stop what `up` started for this data directory."""
    from controlplane.cli import up as command

    _guarded(lambda output: command.stop(data_dir, output), Output(wanted))


@app.command()
def status(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: FormatOption = Format.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Show each part: whether it answers now, its process, its restarts."""
    from controlplane.cli import up as command

    _guarded(lambda output: command.show_status(data_dir, output), _output(wanted, as_json))


@app.command()
def backtest(
    trace: Annotated[Path, typer.Argument(help="CSV of recorded calls; - for stdin.")],
    budgets: Annotated[Path, typer.Option("--budgets", help="Proposed budgets: JSON or YAML.")],
    agent: Annotated[
        str, typer.Option("--agent", help="Whose calls they are, where the CSV does not say.")
    ] = "agent",
    model: Annotated[
        str, typer.Option("--model", help="Their model, where the CSV does not say.")
    ] = "model",
    wanted: FormatOption = Format.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded calls against proposed budgets: who is stopped, when, what it saves."""
    from controlplane.cli import backtest as command

    output = _output(wanted, as_json)
    raise typer.Exit(command.run(trace, budgets, output, agent=agent, model=model))


@app.command()
def sim(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Run so many seeds.")] = 100,
    first: Annotated[int, typer.Option("--first", min=0, help="The first of them.")] = 0,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Run this one; make it small if it fails.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="With --seed: print its log.")] = False,
    only: Annotated[
        list[int] | None, typer.Option("--only", help="With --seed: only this fault. Repeatable.")
    ] = None,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Run the planted bugs; each must be caught.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", min=0, help="Processes; 0: one for each core.")
    ] = 0,
    wanted: FormatOption = Format.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Run the lease protocol under seeded faults: crashes, power loss, partitions, clock steps."""
    from controlplane.cli import sim as command

    output = _output(wanted, as_json)
    if mutants:
        code = command.run_mutants(output, seeds=max(seeds, 200), jobs=jobs)
    elif seed is not None:
        code = command.run_one(output, seed=seed, trace=trace, only=only or [])
    else:
        code = command.run_seeds(output, first=first, count=seeds, jobs=jobs)
    raise typer.Exit(code)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def manage(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Run a management command of Django, on the installation of the data directory."""
    _manage(data_dir, context.args)


@app.command()
def seed(
    size: Annotated[
        str, typer.Option(help="small: 18,000 calls; large: 10 million, within ten minutes.")
    ] = "small",
    organization: Annotated[str, typer.Option(help="The slug of the new organization.")] = "seed",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wanted: FormatOption = Format.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Make an organization with made-up use of ninety days, to try the pages and to measure."""
    form = Format.JSON if as_json else wanted
    _manage(
        data_dir,
        ["seed_usage", f"--size={size}", f"--slug={organization}", f"--format={form.value}"],
    )


@app.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the database to this version (for installations with a DATABASE_URL)."""
    _manage(data_dir, ["migrate", "--noinput"])


@app.command()
def version(wanted: FormatOption = Format.AUTO, as_json: JsonOption = False) -> None:
    """Show the version of the program."""
    from importlib.metadata import version as installed

    _output(wanted, as_json).result({"version": installed("comptroller")})


def _manage(data_dir: Path, arguments: list[str]) -> None:
    from controlplane.cli.budgets import manage

    manage(data_dir, arguments)


def _guarded(action: Any, output: Output) -> None:
    """Run it; what went wrong becomes one sentence and an exit code."""
    try:
        code: Exit = action(output)
    except LauncherError as error:
        output.error(str(error))
        code = exit_code(error)
    raise typer.Exit(code)


def run() -> None:
    """The entry point of the installed command."""
    app(prog_name="comptroller")


if __name__ == "__main__":
    run()
