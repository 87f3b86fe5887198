"""`comptroller cards verify`: offline, without a control plane."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controlplane.cli.cards import app
from enforcement.rules.oms import manifest_digest, root_digest
from enforcement.rules.skillcard import card_digest, sign_statement, statement_bytes
from tests.skills.fixtures.make_cards import KEYS, SIGNER, STRANGER, body, payload, signed, trusted
from tests.skills.publisher import FILES, hash_files, write_skill

KEY = KEYS[0].public_key
LONG_LIVED = {"not_before": "2020-01-01T00:00:00Z", "expires": "2999-01-01T00:00:00Z"}


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card over the files of the example skill."""
    digests = hash_files(FILES)
    skill = {"name": "example-skill", "manifest_sha256": manifest_digest(digests)}
    statement = statement_bytes(
        root_digest=root_digest(digests),
        body=body(skill=type(body().skill)(**skill), **LONG_LIVED),
    )
    path = tmp_path / "card.json"
    path.write_text(sign_statement(statement, private_keys=[SIGNER]))
    return path


def run(*arguments: object, text: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)], input=text)
    return result.exit_code, result.output


def test_valid_card(card: Path) -> None:
    code, output = run(card, "--key", KEY)

    assert code == 0
    assert output.splitlines() == [
        "VALID    example-skill revision 7, expires 2999-01-01T00:00:00Z",
        f"card     sha256:{card_digest(card.read_text())}",
        f"content  sha256:{root_digest(hash_files(FILES))}",
        f"signed   {KEYS[0].key_id}",
        "tools    Read, mcp__docs__*",
    ]


def test_key_in_a_file_and_card_on_stdin(card: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key.hex"
    key_file.write_text(KEY + "\n")

    assert run("-", "--key", key_file, text=card.read_text())[0] == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (signed(payload(expires="2026-11-02T00:00:00Z")), "expired"),
        (signed(payload(**LONG_LIVED), STRANGER), "unknown_key"),
        ("{}", "malformed"),
    ],
)
def test_refused_cards_exit_1_and_name_the_code(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(text)

    exit_code, output = run(path, "--key", KEY)

    assert (exit_code, output.split(":")[0]) == (1, f"REFUSED  {code}")


def test_revoked_and_rolled_back(card: Path) -> None:
    digest = card_digest(card.read_text())

    assert run(card, "--key", KEY, "--revoked", digest)[1].startswith("REFUSED  revoked")
    assert run(card, "--key", KEY, "--known-rev", 8)[1].startswith("REFUSED  rolled_back")


def test_folder_is_compared_with_the_card(card: Path, tmp_path: Path) -> None:
    same = write_skill(tmp_path / "same", FILES)
    renamed = {path.replace("hello.sh", "hullo.sh"): text for path, text in FILES.items()}
    other = write_skill(tmp_path / "other", renamed)

    assert run(card, "--key", KEY, "--skill-folder", same)[0] == 0
    assert run(card, "--key", KEY, "--skill-folder", other)[1].startswith("REFUSED  drifted")


def test_link_in_the_folder_is_drift(card: Path, tmp_path: Path) -> None:
    folder = write_skill(tmp_path / "same", FILES)
    (folder / "link").symlink_to("/etc/passwd")

    assert run(card, "--key", KEY, "--skill-folder", folder)[0] == 1


@pytest.mark.parametrize("key", ["", "zz", "ab" * 31])
def test_misuse_exits_2(card: Path, key: str) -> None:
    assert run(card, "--key", key)[0] == 2


def test_missing_file_exits_2(tmp_path: Path) -> None:
    assert run(tmp_path / "nothing.json", "--key", KEY)[0] == 2


def test_django_is_not_imported() -> None:
    code = "import sys, controlplane.cli.cards, enforcement.rules.skillgate; print('django' in sys.modules)"

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert result.stdout == "False\n"


def test_trusted_keys_of_the_corpus() -> None:
    assert trusted(SIGNER) == KEYS[0]
