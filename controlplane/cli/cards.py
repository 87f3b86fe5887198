"""`comptroller cards`: look at and verify skill cards offline, without a control plane."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # the rules are imported inside, so that --help stays fast
    from enforcement.rules.policy import TrustedKey

app = typer.Typer(no_args_is_help=True, help="Verify skill cards offline.", rich_markup_mode=None)

_REFUSED = 1
_MISUSED = 2


@app.callback()
def _cards() -> None:
    """Verify skill cards offline."""


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The card: a DSSE envelope as JSON; - for stdin.")],
    key: Annotated[
        list[str], typer.Option(help="Trusted Ed25519 public key: 64 hex digits, or a file.")
    ],
    revoked: Annotated[
        list[str] | None, typer.Option(help="Digest of a revoked card. Repeatable.")
    ] = None,
    known_rev: Annotated[
        int, typer.Option(help="Highest revision known of this skill; older ones are refused.")
    ] = 0,
    skill_folder: Annotated[
        Path | None, typer.Option(help="Also compare the card with this skill folder.")
    ] = None,
) -> None:
    """Check signature, time, revision and revocation of a card; exit 1 if it must not be used."""
    from enforcement.rules.skillcard import SkillCardError, check_card, open_card

    keys = [_trusted(text) for text in key]
    try:
        card = open_card(_read(file), keys=keys)
        check_card(
            card,
            revoked=revoked or (),
            now_ms=time.time_ns() // 1_000_000,
            known_rev={card.name: known_rev},
        )
    except SkillCardError as error:
        typer.echo(f"REFUSED  {error.code}: {error}")
        raise typer.Exit(_REFUSED) from None
    if skill_folder is not None:
        _compare(skill_folder, card.root_digest, card.body.skill.manifest_sha256)
    typer.echo(f"VALID    {card.name} revision {card.rev}, expires {card.body.expires}")
    typer.echo(f"card     sha256:{card.digest}")
    typer.echo(f"content  sha256:{card.root_digest}")
    typer.echo(f"signed   {', '.join(card.key_ids)}")
    typer.echo(f"tools    {', '.join(card.tools) or '(none)'}")


def _read(file: Path) -> str:
    try:
        if str(file) == "-":
            return typer.get_text_stream("stdin").read()
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"{file} cannot be read: {error}", err=True)
        raise typer.Exit(_MISUSED) from None


def _trusted(text: str) -> "TrustedKey":
    from enforcement.rules.policy import TrustedKey
    from enforcement.rules.skillcard import key_id_of

    path = Path(text)
    digits = path.read_text(encoding="ascii").strip() if path.is_file() else text.strip()
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        typer.echo("--key takes 64 hex digits, or a file that holds them", err=True)
        raise typer.Exit(_MISUSED)
    return TrustedKey(key_id=key_id_of(raw), public_key=raw.hex())


def _compare(folder: Path, root: str, manifest: str | None) -> None:
    import hashlib

    from enforcement.rules.oms import manifest_digest, root_digest

    if any(path.is_symlink() for path in folder.rglob("*")):
        typer.echo(f"REFUSED  drifted: {folder} holds symbolic links")
        raise typer.Exit(_REFUSED)
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if root_digest(files) != root or manifest not in {None, manifest_digest(files)}:
        typer.echo(f"REFUSED  drifted: the files of {folder} are not those of the card")
        raise typer.Exit(_REFUSED)
