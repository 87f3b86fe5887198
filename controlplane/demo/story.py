"""The demo's plot: play each agent, ask engine and ledger what happened, compare every figure.

The agents play one after the other, because the engine's counters know no agents: what they grew
by while one played is what the engine made for that one.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.demo import agents, engine
from controlplane.demo.agents import Seen
from controlplane.demo.cast import (
    CAST,
    CHATTY,
    INPUT_NANOS_PER_MTOK,
    METERED,
    OUTPUT_NANOS_PER_MTOK,
    RUNAWAY,
    STEADY,
    UNPRICED,
    Role,
)
from controlplane.demo.engine import Counters
from controlplane.launcher.errors import LauncherError
from controlplane.launcher.privileges import child_options
from controlplane.launcher.state import PART_VARIABLE
from controlplane.launcher.up import Running
from enforcement.rules.dialects import Engine
from enforcement.sidecar.engines import ABORT_TOKENS

NANOS_PER_USD = 1_000_000_000
COLUMNS = (
    *("agent", "calls", "tokens by our meter", "tokens by the engine"),
    *("charged", "cap", "overspend", "outcome"),
)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Act:
    """One agent's part: what it saw, what the engine made, what the ledger holds."""

    role: Role
    seen: Seen
    engine: Counters
    ledger: dict[str, Any]

    @property
    def overspend_nanos(self) -> int:
        committed: int = self.ledger["spent_nanos"] + self.ledger["overrun_nanos"]
        return max(committed - self.role.cap_nanos, 0)

    @property
    def outcome(self) -> str:
        return _outcome(self.role, self.seen)

    def row(self) -> list[str]:
        return [
            self.role.name,
            str(self.ledger["calls"]),
            f"{self.ledger['input_tokens']} + {self.ledger['output_tokens']}",
            f"{self.engine.input_tokens} + {self.engine.output_tokens}",
            usd(self.ledger["charged_nanos"]),
            usd(self.role.cap_nanos),
            usd(self.overspend_nanos),
            self.outcome,
        ]

    def disagreements(self) -> list[str]:
        """Every figure that is not what it must be, in words."""
        ledger, produced = self.ledger, self.engine
        # A cut stream has no usage of the engine's own to go by: what the engine may have made
        # unseen before it stopped is charged too, and the call is marked as estimated.
        cut = self.seen.notes.count("cut")
        unseen = cut * ABORT_TOKENS[Engine.LLAMA_CPP]
        dearest = charge_of(produced._replace(output_tokens=produced.output_tokens + unseen))
        spent, made = ledger["spent_nanos"], charge_of(produced)
        output = ledger["output_tokens"]
        figures = [
            _figure(
                "input tokens, meter and engine", ledger["input_tokens"], produced.input_tokens
            ),
            _figure("output tokens, meter and engine", output, produced.output_tokens, unseen),
            _figure("charge, usage events and ledger", ledger["charged_nanos"], spent),
            _figure("charge, ledger and price of the engine's", spent, made, dearest - made),
            _figure("calls, agent and ledger", self.seen.answered, ledger["calls"]),
            _figure("refusals, agent and ledger", len(self.seen.refused), ledger["refused"]),
            _figure("overspend", self.overspend_nanos, 0),
            _figure("overrun", ledger["overrun_nanos"], 0),
            _figure("estimated calls", ledger["estimated"], 0, cut),
        ]
        wrong = [words for words in figures if words]
        if not _is_expected(self.role, self.seen):
            wrong.append(f"outcome: {self.outcome}")
        return [f"{self.role.name}: {words}" for words in wrong]


def _figure(name: str, ours: int, theirs: int, above: int = 0) -> str:
    """Empty if they agree: equal, or ours above theirs by no more than is allowed."""
    return "" if 0 <= ours - theirs <= above else f"{name}: {ours} and {theirs}"


def usd(nanos: int) -> str:
    """Exact dollars."""
    return f"${nanos // NANOS_PER_USD}.{nanos % NANOS_PER_USD:09d}"


def charge_of(made: Counters) -> int:
    """The price of what the engine made, computed here anew. Both rates divide without rest."""
    total = made.input_tokens * INPUT_NANOS_PER_MTOK + made.output_tokens * OUTPUT_NANOS_PER_MTOK
    return total // 1_000_000


def _outcome(role: Role, seen: Seen) -> str:
    parts = [f"{seen.answered} answered"]
    parts += [f"{seen.notes.count(note)} of them {note}" for note in sorted(set(seen.notes))]
    parts += [f"{seen.refused.count(words)} × {words}" for words in sorted(set(seen.refused))]
    if role is CHATTY and seen.refused:
        parts.append("throttled")
    return ", ".join(parts)


def _is_expected(role: Role, seen: Seen) -> bool:
    """Whether the agent met the fate that its budget and rates prescribe."""
    codes = {words.split(" ", 1)[0] for words in seen.refused}
    return {
        STEADY: seen.answered == 3 and not seen.refused and not seen.notes,
        CHATTY: seen.answered >= 1 and codes == {"429"},
        RUNAWAY: seen.notes == ["clamped"] and codes == {"402"},
        METERED: seen.notes == ["cut"] and not seen.refused,
        UNPRICED: seen.answered == 0 and seen.refused == ["403 unpriced_model"],
    }[role]


async def perform(running: Running, environment: dict[str, str], tell: Tell) -> list[Act]:
    """Prepare, play, read the ledger. What the figures say is up to the caller."""
    tell("demo       making five agents, their budgets and keys")
    prepared = await _scene("prepare", environment, "")
    if not prepared["armed"]:
        raise LauncherError("the demo's budgets were not armed in time: see `status`")
    played: dict[str, tuple[Seen, Counters]] = {}
    for role in CAST:
        entry = prepared["cast"][role.slug]
        played[role.slug] = await asyncio.to_thread(_play, role, running, entry["key"])
        tell(f"{role.slug:<10} {_outcome(role, played[role.slug][0])}")
    expected = {
        slug: {
            **prepared["cast"][slug],
            "key": "",
            "calls": seen.answered,
            "refused": len(seen.refused),
        }
        for slug, (seen, _) in played.items()
    }
    ledger = await _scene("figures", environment, json.dumps(expected))
    return [Act(role, *played[role.slug], ledger[role.slug]) for role in CAST]


def _play(role: Role, running: Running, key: str) -> tuple[Seen, Counters]:
    model_url = running.installation.model_url
    before = engine.read_counters(model_url)
    base_url = f"{running.installation.sidecar_url}/v1"
    seen = agents.play(role, base_url=base_url, key=key)
    return seen, engine.read_counters(model_url).since(before)


async def _scene(action: str, environment: dict[str, str], given: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controlplane.demo.scene", action),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={**environment, PART_VARIABLE: "demo"},
        **child_options(None, farewell=signal.SIGKILL),
    )
    printed, words = await process.communicate(given.encode())
    if process.returncode != 0:
        raise LauncherError(f"the demo could not {action}: {words.decode()[-800:]}")
    answer: dict[str, Any] = json.loads(printed)
    return answer
