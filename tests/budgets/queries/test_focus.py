"""FOCUS rows: every nano-dollar once, in the columns of each version."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from focus_data_toolkit.model import load_model
from focus_data_toolkit.model.validator import lint_focus_1_4_structure
from focus_data_toolkit.schema.registry import version_columns

from budgets.domain.rerate import Wish, rerate
from budgets.errors import ExportError
from budgets.queries.focus import COLUMNS, Version, hours_of
from budgets.queries.focusfiles import Output, written
from tests.budgets.domain.test_rerate import LATER, NEW, OLD, price
from tests.budgets.domain.test_rollups import book
from tests.budgets.world import ACTOR, NOW, World, make_world

TEN = datetime(2026, 5, 13, 10, tzinfo=UTC)
DAY = timedelta(days=1)
DATASET = "Cost and Usage"


def exported(world: World, version: Version = Version.FOCUS_1_4) -> list[dict[str, str]]:
    hours = hours_of(world.organization, NOW.date() - DAY, NOW.date() + DAY, version)
    text = b"".join(written(COLUMNS[version], hours, Output.CSV)).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_is_one_hour_of_one_agent_and_model(world: World) -> None:
    nine = TEN - timedelta(hours=1)
    book(world, nine, nine + timedelta(minutes=59), TEN, cached_input_tokens=7)
    book(world, nine, model="other", agent=str(world.loner.id), provider="openai", node="n1")
    book(make_world("foreign"), TEN)
    rows = exported(world)
    assert [(row["x_Model"], row["x_Calls"], row["BilledCost"]) for row in rows] == [
        ("gemma", "2", "0.000003"),
        ("other", "1", "0.0000015"),
        ("gemma", "1", "0.0000015"),
    ]
    first, other, _ = rows
    assert (first["ChargePeriodStart"], first["ChargePeriodEnd"]) == (
        "2026-05-13T09:00:00Z",
        "2026-05-13T10:00:00Z",
    )
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == (
        "2026-05-01T00:00:00Z",
        "2026-06-01T00:00:00Z",
    )
    assert (first["SubAccountName"], first["SubAccountType"]) == (world.project.name, "Project")
    assert (first["x_InputTokens"], first["x_CachedInputTokens"]) == ("200", "14")
    assert (first["ServiceProviderName"], other["ServiceProviderName"]) == (
        "self-hosted",
        "openai",
    )
    assert other["SubAccountId"] == ""
    assert other["ResourceName"] == world.loner.name


def test_a_rating_is_a_correction_and_costs_add_up(world: World) -> None:
    old = price(world, OLD)
    book(world, TEN, charge_nanos=1_500_000, price_version=str(old.id))
    price(world, NEW, at=LATER)
    wish = Wish(organization_id=world.id, model="gemma", since=TEN, until=LATER)
    rerate(wish, actor=ACTOR, reason="wrong list", now=LATER)
    rows = exported(world)
    assert [row["ChargeClass"] for row in rows] == ["", "Correction"]
    assert sum(Decimal(row["EffectiveCost"]) for row in rows) == Decimal("0.00014")
    assert rows[1]["x_Calls"] == "0"


def complaints(rows: list[dict[str, str]]) -> list[str]:
    """What the linter of focus-data-toolkit finds against the 1.4 model of Cost and Usage."""
    return [str(message) for message in lint_focus_1_4_structure(DATASET, rows).messages()]


@pytest.fixture
def rows_of_all_kinds(world: World) -> World:
    """Priced, corrected, unpriced, of a provider and of our own nodes."""
    old = price(world, OLD)
    book(world, TEN, charge_nanos=1_500_000, price_version=str(old.id))
    book(world, TEN, model="other", agent=str(world.loner.id), provider="openai", node="n1")
    price(world, NEW, at=LATER)
    wish = Wish(organization_id=world.id, model="gemma", since=TEN, until=LATER)
    rerate(wish, actor=ACTOR, reason="wrong list", now=LATER)
    return world


def test_rows_of_1_4_pass_an_independent_linter(rows_of_all_kinds: World) -> None:
    rows = exported(rows_of_all_kinds)
    assert len(rows) == 3
    assert complaints(rows) == []
    broken = [rows[0] | {"BilledCost": "many", "ServiceSubcategory": "Chatbots"}]
    assert [name in " ".join(complaints(broken)) for name in ("BilledCost", "Chatbots")] == [
        True,
        True,
    ]


def test_rows_of_1_3_are_those_of_1_4_with_the_names_that_it_deprecates(
    rows_of_all_kinds: World,
) -> None:
    """Its columns and which of them are mandatory: those of the 1.4 model by when they came in."""
    rows = exported(rows_of_all_kinds, Version.FOCUS_1_3)
    ours = {name for name in rows[0] if not name.startswith("x_")}
    assert ours <= version_columns(DATASET, "1.3")
    columns = load_model()["datasets"][DATASET]["columns"]
    mandatory = {
        name
        for name, column in columns.items()
        if column["feature_level"] == "Mandatory" and column["version"] != "1.4"
    }
    assert len(mandatory) >= 20
    assert mandatory <= ours
    deprecated = ("ProviderName", "PublisherName")
    assert all(row[name] for row in rows for name in deprecated)
    assert complaints([{k: v for k, v in row.items() if k not in deprecated} for row in rows]) == []


def test_versions_differ_by_what_was_removed(world: World) -> None:
    book(world, TEN)
    (older,), (newer,) = exported(world, Version.FOCUS_1_3), exported(world)
    assert set(older) - set(newer) == {"ProviderName", "PublisherName"}


def test_without_use_there_are_only_columns(world: World) -> None:
    hours = hours_of(world.organization, NOW.date(), NOW.date() + DAY, Version.FOCUS_1_4)
    (head,) = written(COLUMNS[Version.FOCUS_1_4], hours, Output.CSV)
    assert head.decode() == ",".join(COLUMNS[Version.FOCUS_1_4]) + "\n"


def test_parquet_has_the_same_rows(world: World) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    book(world, TEN, TEN - timedelta(hours=1))
    hours = hours_of(world.organization, NOW.date(), NOW.date() + DAY, Version.FOCUS_1_4)
    whole = b"".join(written(COLUMNS[Version.FOCUS_1_4], hours, Output.PARQUET))
    rows = parquet.read_table(io.BytesIO(whole)).to_pylist()
    assert [(row["BilledCost"], row["x_Calls"]) for row in rows] == [(Decimal("0.0000015"), 1)] * 2
    assert rows[0]["ChargeClass"] is None


def test_without_pyarrow_it_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ExportError, match="comptroller\\[archive\\]"):
        written(("BilledCost",), [], Output.PARQUET)
