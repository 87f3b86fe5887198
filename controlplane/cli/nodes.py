"""`comptroller nodes`: the serving nodes of the installation of the data directory."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(no_args_is_help=True, help="Serving nodes.", rich_markup_mode=None)

Node = Annotated[str, typer.Argument(help="The node's name or id.")]
Reason = Annotated[str, typer.Option(help="Why; it is written to the audit trail.")]
Organization = Annotated[str, typer.Option(help="Its slug, where there are several.")]
DataDir = Annotated[Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is.")]
Wanted = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
HERE = Path(".comptroller")


@app.callback()
def _nodes() -> None:
    """Serving nodes."""


@app.command("list")
def list_nodes(
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE. Repeatable.")] = None,
    gone: Annotated[bool, typer.Option("--gone", help="Also those that were removed.")] = False,
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Every node: its engine, state, cost by the hour, and when it was read last."""
    wish = {"labels": list(label or ()), "gone": gone}
    _run(data_dir, "list", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def show(
    node: Node,
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """All that is known of one node."""
    _run(data_dir, "show", {"node": node}, organization, Format.JSON if as_json else wanted)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="As sidecars name it, if one does.")],
    url: Annotated[str, typer.Argument(help="http(s)://host:port of the server.")],
    engine: Annotated[str, typer.Option(help="Its engine; found out if left.")] = "unknown",
    metrics_path: Annotated[
        str, typer.Option(help="Where its counters are; empty: it has none.")
    ] = "/metrics",
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE. Repeatable.")] = None,
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Enter a node whose counters are to be read."""
    wish = {
        "name": name,
        "base_url": url,
        "engine": engine,
        "metrics_path": metrics_path,
        "labels": list(label or ()),
    }
    _run(data_dir, "add", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def cost(
    node: Node,
    per_hour: Annotated[str, typer.Argument(help="Dollars for each hour, idle ones too: 2.49")],
    valid_from: Annotated[str, typer.Option("--from", help="Since when (ISO 8601).")] = "",
    accelerator: Annotated[str, typer.Option(help="Its kind, such as 'NVIDIA H100'.")] = "",
    count: Annotated[int, typer.Option(help="How many of them.")] = 0,
    watts: Annotated[int | None, typer.Option(help="Of the whole node, under load.")] = None,
    reason: Reason = "",
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Record what a node costs from now, or from a time, on.

    Nothing recorded is edited: another cost with the same date corrects the one before it.
    """
    wish: dict[str, Any] = {"node": node, "cost_per_hour": per_hour, "reason": reason}
    if valid_from:
        wish["valid_from"] = valid_from
    if accelerator or count:
        wish |= {"accelerator": accelerator, "accelerator_count": count or 1}
    if watts is not None:
        wish["watts"] = watts
    _run(data_dir, "cost", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def label(
    node: Node,
    labels: Annotated[list[str], typer.Argument(help="NAME=VALUE sets, NAME- takes away.")],
    reason: Reason = "",
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Set labels of a node, or take them away."""
    wish = {"node": node, "labels": labels, "reason": reason}
    _run(data_dir, "label", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def discover(
    place: Annotated[
        str,
        typer.Argument(help="A file, dns:NAME:PORT, or kubernetes:NAMESPACE[/SELECTOR]."),
    ],
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Enter the nodes that a place names; those that it names no more are gone.

    COMPTROLLER_NODES_FROM has the worker do so every minute.
    """
    is_path = not place.startswith(("dns:", "kubernetes:"))
    wish = {"place": str(Path(place).absolute()) if is_path else place}
    _run(data_dir, "discover", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def patience(
    node: Node,
    seconds: Annotated[int, typer.Argument(help="How long it may be silent; 0: not at all.")],
    reason: Reason = "",
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Say for how long a node may be silent: nodes at the edge are often away."""
    wish = {"node": node, "patience_s": seconds, "reason": reason}
    _run(data_dir, "patience", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def drain(
    node: Node,
    reason: Reason = "",
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Take a node out of service: it gets no new calls, what runs on it goes on."""
    wish = {"node": node, "reason": reason}
    _run(data_dir, "drain", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def activate(
    node: Node,
    reason: Reason = "",
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Take a node that was drained or removed into service again."""
    wish = {"node": node, "reason": reason}
    _run(data_dir, "activate", wish, organization, Format.JSON if as_json else wanted)


@app.command()
def remove(
    node: Node,
    reason: Reason = "",
    organization: Organization = "",
    data_dir: DataDir = HERE,
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Remove a node: no new calls, it is not read any more, its history stays."""
    wish = {"node": node, "reason": reason}
    _run(data_dir, "remove", wish, organization, Format.JSON if as_json else wanted)


def _run(data_dir: Path, verb: str, wish: object, organization: str, form: Format) -> None:
    arguments = ["work_on_nodes", verb, json.dumps(wish), f"--organization={organization}"]
    manage(data_dir, [*arguments, f"--format={form.value}"])
