"""The short form of `./run chaos`: real processes are killed, stopped, cut off and filled up."""

import os
import re
import subprocess
import sys

from benchmarks.common import ROOT
from tests.plugin import ENVIRONMENT

CLAIMS = 15


def test_nothing_is_spent_past_a_cap_whatever_breaks() -> None:
    own = {*ENVIRONMENT, "DATABASE_URL", "DJANGO_SETTINGS_MODULE"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "20", "--every", "0.6"]

    answer = subprocess.run(
        [*command, "--seed", "20261124"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert re.findall(r"^BROKEN .*$", answer.stdout, re.MULTILINE) == [], answer.stdout
    assert len(re.findall(r"^holds ", answer.stdout, re.MULTILINE)) == CLAIMS, answer.stderr
    assert answer.returncode == 0
