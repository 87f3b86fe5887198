"""System checks: each with its id, each seen to fail."""

from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connection

pytestmark = pytest.mark.django_db


def found(*, deploy: bool = False) -> set[str]:
    messages = run_checks(databases=["default"], include_deployment_checks=deploy)
    return {str(message.id) for message in messages if str(message.id).startswith("controlplane.")}


def test_a_right_installation_passes() -> None:
    assert found() == set()


def test_commits_that_are_not_durable() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = local")
    assert found() == {"controlplane.E001"}


@pytest.mark.parametrize("secret", ["", "short", "x" * 31])
def test_a_weak_secret(settings: Any, secret: str) -> None:
    settings.SECRET_KEY = secret
    assert found() == {"controlplane.E002"}


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com", "https://a/path"])
def test_a_public_address_that_is_none(settings: Any, url: str) -> None:
    settings.PUBLIC_URL = url
    assert found() == {"controlplane.E003"}


def test_an_absent_broker_is_a_warning(settings: Any) -> None:
    settings.BROKER_URL = "redis+socket:///nowhere/at/all.sock"
    assert "controlplane.W001" in found(deploy=True)


def test_debugging_in_public_is_a_warning(settings: Any) -> None:
    settings.DEBUG, settings.PUBLIC_URL = True, "https://comptroller.example"
    assert "controlplane.W002" in found(deploy=True)
    settings.PUBLIC_URL = "http://127.0.0.1:8300"
    assert "controlplane.W002" not in found(deploy=True)
