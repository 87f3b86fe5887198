"""How light the sidecar is: the time of `comptroller sidecar --help`, its memory when idle.

benchmarks/footprint.py [--json FILE] [--check]
"""

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import Result, arguments, conclude, stack

from controlplane.launcher import state

HELP_RUNS = 10
HELP_GOAL_S = 0.5
IDLE_S = 10
IDLE_GOAL_MB = 60


def main() -> None:
    asked = arguments(__doc__)
    result = Result("Footprint of the sidecar", ("measure", "value", "goal"))
    seconds = statistics.median(_help_seconds() for _ in range(HELP_RUNS))
    result.rows.append(
        ("`comptroller sidecar --help`, median", f"{seconds:.2f} s", f"≤ {HELP_GOAL_S} s")
    )
    result.goal("help within half a second", met=seconds <= HELP_GOAL_S)
    megabytes = asyncio.run(_idle_megabytes())
    result.rows.append(("memory of an idle sidecar", f"{megabytes:.0f} MB", f"≤ {IDLE_GOAL_MB} MB"))
    result.goal("idle memory within 60 MB", met=megabytes <= IDLE_GOAL_MB)
    conclude([result], asked)


def _help_seconds() -> float:
    program = Path(sys.executable).parent / "comptroller"
    began = time.perf_counter()
    subprocess.run([program, "sidecar", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


async def _idle_megabytes() -> float:
    """Resident memory some seconds after the start, in step with the control plane."""
    async with stack() as running:
        await asyncio.sleep(IDLE_S)
        facts = state.read(running.installation.places) or {}
        (pid,) = (part["pid"] for part in facts["parts"] if part["part"] == "sidecar")
        return _resident_megabytes(pid)


def _resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
