"""`prices import`, `diff` and `list`, by the management commands behind them."""

import json
from datetime import timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from budgets.models import PriceVersion
from controlplane.audit.models import AuditEntry
from tests.budgets.world import World

pytestmark = pytest.mark.django_db
SHEET = "provider,model,match,input,output\nacme,gemma,exact,0.05,0.10\nacme,gemma-,prefix,1,2\n"

Said = pytest.CaptureFixture[str]


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    file = tmp_path / "prices.csv"
    file.write_text(SHEET)
    return file


def asked(capsys: Said, *words: str) -> Any:
    call_command(*words, "--format=json")
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("world")
def test_the_installed_catalogue_is_told_then_taken_once(capsys: Said) -> None:
    tried = asked(capsys, "import_prices", "--dry-run")
    assert (tried["applied"], tried["changed"], tried["held_back"]) == (False, 0, 0)
    assert "openai:gpt-4o" in {row["model"] for row in tried["changes"]}
    assert PriceVersion.objects.count() == 0
    first, second = (asked(capsys, "import_prices") for _ in range(2))
    assert (first["added"], second["added"], second["changed"]) == (tried["added"], 0, 0)
    assert PriceVersion.objects.filter(valid_from__lt=timezone.now() - timedelta(days=1)).exists()


def test_a_file_is_told_rate_by_rate_then_taken(world: World, capsys: Said, sheet: Path) -> None:
    told = asked(capsys, "import_prices", str(sheet), "--dry-run")
    assert told["changes"][0] == {
        "model": "acme:gemma",
        "what": "new",
        "rate": "input",
        "before": None,
        "after": "0.05",
        "starts_at": told["changes"][0]["starts_at"],
        "jump": False,
    }
    assert PriceVersion.objects.count() == 0
    taken = asked(capsys, "import_prices", str(sheet), "--reason=contract")
    assert (taken["added"], taken["applied"]) == (2, True)
    assert AuditEntry.objects.get(organization_id=world.id).reason == "contract"


@pytest.mark.usefixtures("world")
def test_a_slip_of_the_point_is_refused_until_it_is_confirmed(capsys: Said, sheet: Path) -> None:
    asked(capsys, "import_prices", str(sheet))
    sheet.write_text(SHEET.replace("0.10", "10"))
    told = asked(capsys, "import_prices", str(sheet), "--dry-run")
    assert [
        (row["model"], row["rate"], row["before"], row["after"], row["jump"])
        for row in told["changes"]
    ] == [("acme:gemma", "output", "0.10", "10.00", True)]
    with pytest.raises(CommandError, match=r"acme:gemma: output rises from \$0.10 to \$10.00"):
        asked(capsys, "import_prices", str(sheet))
    taken = asked(capsys, "import_prices", str(sheet), "--confirm=acme:gemma")
    assert (taken["changed"], taken["unchanged"]) == (1, 1)


def test_own_rates_are_listed_as_they_are_brought_back(
    world: World, capsys: Said, sheet: Path
) -> None:
    asked(capsys, "import_prices", str(sheet), f"--organization={world.organization.slug}")
    call_command("list_prices", "--own", "--csv")
    sheet.write_text(capsys.readouterr().out)
    again = asked(capsys, "import_prices", str(sheet), f"--organization={world.organization.slug}")
    assert (again["unchanged"], again["added"], again["changed"]) == (2, 0, 0)
    rows = asked(capsys, "list_prices", "--model=gemma-")
    assert [(row["name"], row["input"], row["own"]) for row in rows] == [
        ("acme:gemma-*", "1.00", True)
    ]


@pytest.mark.usefixtures("world")
def test_a_file_comes_by_stdin(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(SHEET.encode())))
    assert asked(capsys, "import_prices", "-", "--as=csv")["added"] == 2


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/nowhere/prices.csv"], "No such file"),
        (["/"], "Is a directory"),
        (["SHEET", "--as=excel"], "--as is one of genai-prices, litellm, csv"),
        (["SHEET", "--as=litellm"], "not a litellm price file"),
        (["SHEET", "--organization=nobody"], "no such organization"),
    ],
)
def test_a_wish_that_cannot_be_meant(
    capsys: Said, sheet: Path, words: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        asked(capsys, "import_prices", *[word.replace("SHEET", str(sheet)) for word in words])
    assert PriceVersion.objects.count() == 0
