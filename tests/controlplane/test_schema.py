"""The OpenAPI schema: committed, complete, and without a warning."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.test import Client

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.yaml"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(COMMITTED.read_text())
    return content


def test_the_committed_schema_is_what_the_code_says() -> None:
    made = StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=made)
    hint = "regenerate it: python manage.py spectacular --validate --file docs/openapi.yaml"
    assert made.getvalue() == COMMITTED.read_text(), hint


def test_every_operation_needs_a_credential_and_tells_of_problems(schema: dict[str, Any]) -> None:
    operations = [
        operation
        for path in schema["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    assert len(operations) >= 60
    for operation in operations:
        assert operation["security"] == [{"token": []}, {"session": []}]
        problem = operation["responses"]["default"]["content"]["application/problem+json"]
        assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_money_is_never_a_number(schema: dict[str, Any]) -> None:
    assert "number" not in {
        field.get("type")
        for component in schema["components"]["schemas"].values()
        for field in component.get("properties", {}).values()
    }


def test_operations_are_named_once(schema: dict[str, Any]) -> None:
    names = [
        operation["operationId"]
        for path in schema["paths"].values()
        for method, operation in path.items()
    ]
    assert len(names) == len(set(names))


def test_the_documentation_loads_nothing_from_elsewhere() -> None:
    page = Client().get("/api/docs")
    assert page.status_code == 200
    assert b"https://" not in page.content
    assert b"<script>" not in page.content
