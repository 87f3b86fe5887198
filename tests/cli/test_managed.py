"""Commands that work on an installation say so when there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "verify"],
        ["budgets", "explain", "--agent", "reader"],
        ["reconcile", "--hours", "2"],
        ["nodes", "list"],
        ["usage", "query", "--group-by", "model,agent"],
        ["usage", "export", "--output", "csv"],
        ["seed", "--size", "small"],
        ["migrate"],
        ["tasks", "list"],
        ["tasks", "dead"],
    ],
)
def test_without_an_installation_there_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
    ended = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *words, "--data-dir", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert ended.stderr.startswith(f"error: nothing is running for {tmp_path}")
    assert "Traceback" not in ended.stderr
