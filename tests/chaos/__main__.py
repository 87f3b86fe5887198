"""Break the real product in every way, and count the money.

    ./run chaos [--seconds 120] [--seed S] [--every 1.5]

The whole stack, two sidecars more with links and disks that fail, agents that stream without end,
and fake engines that count what they truly made. When all is healed: nothing was spent past a hard
cap, the ledger has all that was made, nothing stays held, and the next call is answered.
"""

import argparse
import asyncio
import sys
import time

from tests.chaos.run import Wishes, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120, help="how long things break")
    parser.add_argument("--seed", type=int, default=None, help="which faults, in which order")
    parser.add_argument("--every", type=float, default=1.5, help="seconds between faults")
    parser.add_argument("--only", default="", help="only faults whose name has this: failover")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else int(time.time())
    report = asyncio.run(
        run(Wishes(seconds=asked.seconds, seed=seed, every_s=asked.every, only=asked.only))
    )
    report.print()
    sys.exit(0 if report.holds else 1)


if __name__ == "__main__":
    main()
