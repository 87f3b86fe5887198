"""`comptroller prices`: prices of the installation of the data directory."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.budgets import manage
from controlplane.cli.output import Format

app = typer.Typer(no_args_is_help=True, help="Work on prices.", rich_markup_mode=None)


@app.callback()
def _prices() -> None:
    """Work on prices."""


DataDir = Annotated[
    Path, typer.Option(envvar="COMPTROLLER_DATA_DIR", help="Where all data is kept.")
]
Wanted = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
SlugOption = Annotated[
    str, typer.Option("--organization", help="Its slug, where there are several.")
]
PriceFile = Annotated[
    str, typer.Argument(help="Prices; - for stdin. Without: those of the installed genai-prices.")
]
As = Annotated[
    str, typer.Option("--as", help="genai-prices, litellm or csv; default: by its content.")
]
Owner = Annotated[
    str,
    typer.Option(
        "--organization", help="As own rates of the one with this slug; else the catalogue's."
    ),
]


@app.command()
def diff(
    file: PriceFile = "",
    form: As = "",
    organization: Owner = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Tell what importing a price file would change, rate by rate, doubtful ones first."""
    arguments = _import_arguments(file, form, organization, _form(wanted, as_json))
    manage(data_dir, [*arguments, "--dry-run"])


@app.command(name="import")
def import_(
    file: PriceFile = "",
    form: As = "",
    organization: Owner = "",
    confirm: Annotated[
        list[str] | None,
        typer.Option(help="A model whose hundredfold jump is meant, as `diff` names it."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit trail.")] = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Take the prices of a file from now on, as a whole or not at all.

    What it changes becomes a new version; past charges stay. A rate that becomes a hundred times
    what it was, or a hundredth, is refused until --confirm names its model. To run it again changes
    nothing.
    """
    arguments = _import_arguments(file, form, organization, _form(wanted, as_json))
    confirmed = [f"--confirm={name}" for name in confirm or ()]
    manage(data_dir, [*arguments, *confirmed, f"--reason={reason}"])


def _import_arguments(file: str, form: str, organization: str, wanted: Format) -> list[str]:
    options = [f"--as={form}", f"--organization={organization}", f"--format={wanted.value}"]
    return ["import_prices", *options, *([file] if file else [])]


@app.command(name="list")
def list_(
    model: Annotated[str, typer.Option(help="Only names with this in them.")] = "",
    provider: Annotated[str, typer.Option(help="Only this provider.")] = "",
    own: Annotated[bool, typer.Option("--own", help="Only the organization's own rates.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Whole, as `import` reads it: to edit and bring back.")
    ] = False,
    organization: SlugOption = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """The prices that hold now, in dollars per million tokens; own rates first."""
    form = _form(wanted, as_json)
    flags = [*(["--own"] if own else []), *(["--csv"] if as_csv else [])]
    options = [f"--model={model}", f"--provider={provider}", f"--organization={organization}"]
    manage(data_dir, ["list_prices", *options, *flags, f"--format={form.value}"])


@app.command()
def alias(
    model: Annotated[
        str,
        typer.Argument(help="A name, or its beginning and a *; * alone: what nothing else prices."),
    ],
    like: Annotated[str, typer.Option(help="The model whose price it pays, from now on.")],
    like_provider: Annotated[str, typer.Option(help="And of which provider.")] = "",
    provider: Annotated[str, typer.Option(help="Only requests to this provider.")] = "",
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit trail.")] = "",
    organization: SlugOption = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Let a name cost what another model costs, whatever that comes to be."""
    rule = {"kind": "alias", "target_provider": like_provider, "target_model": like}
    rule |= {"provider": provider, "reason": reason, **_named(model)}
    _rules(["--set", json.dumps(rule)], organization, data_dir, _form(wanted, as_json))


@app.command()
def discount(
    model: Annotated[
        str, typer.Argument(help="A name of the catalogue, or its beginning and a *; * alone: all.")
    ],
    percent: Annotated[str, typer.Option(help="How much less; tenths at the finest.")],
    provider: Annotated[str, typer.Option(help="Only rates of this provider.")] = "",
    since: Annotated[str, typer.Option(help="From then on (ISO 8601); default: now.")] = "",
    until: Annotated[str, typer.Option(help="Before this instant.")] = "",
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit trail.")] = "",
    organization: SlugOption = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Take a negotiated share off the catalogue's rates, also off later ones."""
    rule: dict[str, Any] = {"kind": "discount", "percent": percent, "provider": provider}
    rule |= {"reason": reason, **_named(model)}
    times = {"valid_from": since, "valid_to": until}
    rule |= {name: at for name, at in times.items() if at}
    _rules(["--set", json.dumps(rule)], organization, data_dir, _form(wanted, as_json))


@app.command()
def measure(
    model: Annotated[str, typer.Argument(help="A model that your own nodes serve.")],
    since: Annotated[str, typer.Option(help="From this whole hour on (ISO 8601).")],
    until: Annotated[str, typer.Option(help="Before this one.")],
    answer_weight: Annotated[
        str, typer.Option(help="How much dearer an answer's token is than one of the prompt.")
    ] = "4",
    cached_weight: Annotated[str, typer.Option(help="And one out of the prompt's cache.")] = "0.1",
    apply: Annotated[
        bool, typer.Option("--apply", help="Make them the own rates from now on.")
    ] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="A hundredfold jump is meant.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit trail.")] = "",
    organization: SlugOption = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Rates of a self-hosted model: what its nodes cost, divided by what they made.

    Idle hours count. What it was computed from is shown, and kept with the rates.
    """
    times = [f"--since={since}", f"--until={until}"]
    weights = [f"--answer-weight={answer_weight}", f"--cached-weight={cached_weight}"]
    flags = [*(["--apply"] if apply else []), *(["--confirm"] if confirm else [])]
    options = [f"--reason={reason}", f"--organization={organization}"]
    form = f"--format={_form(wanted, as_json).value}"
    manage(data_dir, ["measure_prices", *times, *weights, *flags, *options, form, "--", model])


@app.command()
def rules(
    end: Annotated[str, typer.Option(help="The id of a rule that ends now.")] = "",
    reason: Annotated[str, typer.Option(help="Why it ends.")] = "",
    organization: SlugOption = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Aliases and discounts; with --end, end one."""
    changed = [f"--end={end}", f"--reason={reason}"]
    _rules(changed, organization, data_dir, _form(wanted, as_json))


def _rules(changed: list[str], organization: str, data_dir: Path, form: Format) -> None:
    options = [f"--organization={organization}", f"--format={form.value}"]
    manage(data_dir, ["price_rules", *changed, *options])


def _named(pattern: str) -> dict[str, str]:
    if pattern.endswith("*"):
        return {"model": pattern[:-1], "match": "prefix"}
    return {"model": pattern}


def _form(wanted: Format, as_json: bool) -> Format:
    return Format.JSON if as_json else wanted


@app.command()
def rerate(
    model: Annotated[str, typer.Option(help="The model; a * may end the name.")],
    since: Annotated[str, typer.Option(help="Calls that began then or later (ISO 8601).")],
    until: Annotated[str, typer.Option(help="And before this instant.")],
    provider: Annotated[str, typer.Option(help="Only calls of this provider.")] = "",
    price_version: Annotated[
        str, typer.Option(help="The id of a price version; default: what is valid now.")
    ] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Book it; else it is only told.")] = False,
    reason: Annotated[str, typer.Option(help="Why; needed with --apply.")] = "",
    organization: SlugOption = "",
    data_dir: DataDir = Path(".comptroller"),
    wanted: Wanted = Format.AUTO,
    as_json: AsJson = False,
) -> None:
    """Charge recorded calls again at the prices that are valid now, and book the differences.

    Tells what would change: calls, models, balances. With --apply it is booked, as corrections that
    name the call and both prices. To run it again books nothing more.
    """
    wish: dict[str, Any] = {
        "model": model,
        "provider": provider,
        "since": since,
        "until": until,
        "apply": apply,
        "reason": reason,
    }
    if price_version:
        wish["price_version"] = price_version
    form = _form(wanted, as_json)
    arguments = ["rerate_usage", json.dumps(wish), "--format", form.value]
    manage(data_dir, [*arguments, f"--organization={organization}"])
