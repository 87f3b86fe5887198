"""The short form of `./run chaos`: processes are killed, stopped, cut off, filled up, replaced."""

import os
import re
import subprocess
import sys

from benchmarks.common import ROOT
from tests.plugin import ENVIRONMENT

CLAIMS = 17
SEED = "20261178"  # PostgreSQL fails over while the agents begin


def test_nothing_is_spent_past_a_cap_whatever_breaks() -> None:
    own = {*ENVIRONMENT, "DATABASE_URL", "DJANGO_SETTINGS_MODULE"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "24", "--every", "0.6"]

    answer = subprocess.run(
        [*command, "--seed", SEED],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert re.findall(r"^BROKEN .*$", answer.stdout, re.MULTILINE) == [], answer.stdout
    assert len(re.findall(r"^holds ", answer.stdout, re.MULTILINE)) == CLAIMS, answer.stderr
    lost = r"failovers: 1, incarnations of the ledger: 2, leases lost: [1-9]\d*, adopted: [1-9]"
    assert re.search(lost, answer.stdout), answer.stdout
    assert answer.returncode == 0
