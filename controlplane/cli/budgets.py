"""`comptroller budgets`: ask the installation of the data directory about its budgets."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.output import Exit, Format, Output

app = typer.Typer(no_args_is_help=True, help="Ask about budgets.", rich_markup_mode=None)


@app.callback()
def _budgets() -> None:
    """Ask about budgets."""


@app.command()
def explain(
    agent: Annotated[str, typer.Option(help="Whose request: the agent's slug or id.")],
    model: Annotated[str, typer.Option(help="The model that it asks for.")] = "",
    session: Annotated[str, typer.Option(help="Its session.")] = "",
    user: Annotated[str, typer.Option(help="The user that it names.")] = "",
    provider: Annotated[str, typer.Option(help="The provider behind the node.")] = "",
    node: Annotated[str, typer.Option(help="The serving node.")] = "",
    skill: Annotated[str, typer.Option(help="The skill that it names.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE. Repeatable.")] = None,
    input_tokens: Annotated[int, typer.Option(help="Tokens of its prompt.")] = 0,
    output_tokens: Annotated[int, typer.Option(help="The most that it may generate.")] = 4_096,
    gpu_ms: Annotated[int, typer.Option(help="Its deadline × accelerators.")] = 0,
    tool_calls: Annotated[int, typer.Option(help="The most tool calls of its answer.")] = 0,
    organization: Annotated[str, typer.Option(help="Its slug, where there are several.")] = "",
    data_dir: Annotated[
        Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
    ] = Path(".comptroller"),
    wanted: Annotated[
        Format, typer.Option("--format", help="How to write the answer.")
    ] = Format.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Every budget that a request matches, what is free, what would happen, who can raise it."""
    wish: dict[str, Any] = {
        "agent": agent,
        "model": model,
        "session": session,
        "user": user,
        "provider": provider,
        "node": node,
        "skill": skill,
        "tags": ",".join(tag or ()),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "gpu_ms": gpu_ms,
        "tool_calls": tool_calls,
    }
    form = Format.JSON if as_json else wanted
    arguments = ["explain_budgets", json.dumps(wish), "--format", form.value]
    manage(data_dir, [*arguments, f"--organization={organization}"])


def manage(data_dir: Path, arguments: list[str]) -> None:
    """Become a management command of the installation; without one, say so and exit."""
    from controlplane.cli.up import environment_of

    environment = environment_of(data_dir)
    if "DATABASE_URL" not in environment:
        output = Output()
        output.error(f"nothing is running for {data_dir}, and no DATABASE_URL is set")
        output.hint("start it with `comptroller up`, or name another --data-dir")
        raise typer.Exit(Exit.NOT_FOUND)
    os.execve(sys.executable, [sys.executable, "-m", "django", *arguments], environment)  # noqa: S606
