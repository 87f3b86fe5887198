"""Environment variables: loud on bad values."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.env import (
    SettingError,
    database_settings,
    env_bool,
    env_int,
    env_secret,
    env_text,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), (" on ", True), ("no", False), ("0", False), ("", False)],
)
def test_a_boolean_is_read(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("X", text)
    assert env_bool("X", default=not value) is value


def test_defaults_are_for_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("X", raising=False)
    assert env_bool("X", default=True) is True
    assert env_int("X", default=7) == 7
    assert env_text("X", default="d") == "d"
    assert env_secret("X", default="d") == "d"


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (lambda: env_bool("X"), "maybe", "X must be true or false, not 'maybe'"),
        (lambda: env_int("X", default=1), "many", "X must be a whole number, not 'many'"),
        (lambda: env_int("X", default=1), "1.5", "X must be a whole number, not '1.5'"),
        (lambda: env_int("X", default=1, minimum=2), "1", "X must be at least 2, not 1"),
    ],
)
def test_bad_values_are_named(
    monkeypatch: pytest.MonkeyPatch, read: Any, text: str, words: str
) -> None:
    monkeypatch.setenv("X", text)
    with pytest.raises(SettingError) as caught:
        read()
    assert str(caught.value) == words


def test_a_secret_can_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("X", raising=False)
    monkeypatch.setenv("X_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingError, match="X_FILE cannot be read"):
        env_secret("X")
    (tmp_path / "secret").write_text("hush\n")
    assert env_secret("X") == "hush"
    monkeypatch.setenv("X", "other")
    with pytest.raises(SettingError, match="X and X_FILE are both set"):
        env_secret("X")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://me@/db?host=/run/pg",
            {"NAME": "db", "USER": "me", "PASSWORD": "", "HOST": "/run/pg", "PORT": ""},
        ),
        (
            "postgres://me:p%40ss@db.example:6432/my%20db",
            {
                "NAME": "my db",
                "USER": "me",
                "PASSWORD": "p@ss",
                "HOST": "db.example",
                "PORT": "6432",
            },
        ),
        (
            "postgresql:///db?host=/run/pg&port=5433",
            {"NAME": "db", "USER": "", "PASSWORD": "", "HOST": "/run/pg", "PORT": "5433"},
        ),
        (
            "postgresql://[::1]/",
            {"NAME": "comptroller", "USER": "", "PASSWORD": "", "HOST": "::1", "PORT": ""},
        ),
    ],
)
def test_a_database_address_is_read(url: str, expected: dict[str, Any]) -> None:
    entry = database_settings(url)
    assert {name: entry[name] for name in expected} == expected
    assert entry["OPTIONS"] == {"application_name": "comptroller"}


def test_other_parameters_go_to_the_driver() -> None:
    options = database_settings("postgresql://h/db?sslmode=require", pool_size=5)["OPTIONS"]
    assert options["sslmode"] == "require"
    assert options["pool"] == {"min_size": 1, "max_size": 5, "timeout": 10}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://h/db", "DATABASE_URL must start with postgresql://, not 'mysql'"),
        ("", "DATABASE_URL must start with postgresql://, not ''"),
        ("postgresql://h:port/db", "DATABASE_URL has a port that is no number"),
    ],
)
def test_a_wrong_database_address_is_told(url: str, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        database_settings(url)
    assert str(caught.value) == words
