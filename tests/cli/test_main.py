"""The command line imports only what the called command needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("django", "celery", "rest_framework", "psycopg", "genai_prices", "openai", "uvloop")


def comptroller(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("arguments", [["--help"], ["sidecar", "--help"], ["up", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['comptroller', *{arguments!r}]\n"
        "from controlplane.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["up", "demo", "down", "status", "manage", "sidecar"])
def test_help_lists_every_command(command: str) -> None:
    assert f"\n  {command} " in comptroller("--help").stdout


@pytest.mark.parametrize("command", ["status", "down"])
def test_nothing_running_is_not_found(command: str, tmp_path: Path) -> None:
    answer = comptroller(command, "--data-dir", str(tmp_path))

    assert answer.returncode == 3
    assert answer.stderr == f"error: nothing is up for {tmp_path}\n"


def test_an_unknown_option_is_a_usage_error() -> None:
    assert comptroller("up", "--colour").returncode == 2


def test_a_port_that_leaves_no_room_is_a_usage_error() -> None:
    assert comptroller("up", "--port", "70000").returncode == 2


def test_manage_passes_its_arguments_on(tmp_path: Path) -> None:
    answer = comptroller("manage", "--data-dir", str(tmp_path), "version")

    assert answer.returncode == 0
    assert answer.stdout.startswith("5.2.")


def test_the_data_directory_may_come_from_the_environment(tmp_path: Path) -> None:
    answer = comptroller("status", COMPTROLLER_DATA_DIR=str(tmp_path / "there"))

    assert f"nothing is up for {tmp_path}/there" in answer.stderr


def test_the_version_is_told_as_data() -> None:
    answer = comptroller("version", "--json")

    assert json.loads(answer.stdout)["version"] == "0.1.0"
