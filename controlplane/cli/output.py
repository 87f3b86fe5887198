"""What commands say, and to whom: a person, an agent, a program, or a script that wants ids.

human   aligned columns, short words
agent   tab-separated cells, whole, without colour: for a language model that reads its terminal
json    one compact JSON document
quiet   the first column only

Answers go to stdout; progress, hints and errors go to stderr, so that stdout stays parseable.
Control characters in text from elsewhere are escaped: a hostile name must not move the cursor.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Any

from controlplane.launcher.errors import AlreadyRunningError, LauncherError, NotRunningError

# The marks that coding agents leave in the environment of the commands they run.
AGENT_VARIABLES = (
    *("AI_AGENT", "AGENT", "CLAUDECODE", "CLAUDE_CODE", "CODEX_SANDBOX", "CODEX_CI"),
    *("CODEX_THREAD_ID", "CURSOR_AGENT", "CURSOR_TRACE_ID", "GEMINI_CLI", "OPENCODE"),
    *("AUGMENT_AGENT", "ANTIGRAVITY_AGENT", "COPILOT_MODEL", "REPL_ID"),
)


class Format(StrEnum):
    """How answers are written."""

    AUTO = "auto"
    HUMAN = "human"
    AGENT = "agent"
    JSON = "json"
    QUIET = "quiet"


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    EXHAUSTED = 7


class Output:
    """Says things in one of the formats. Decided once, at the start."""

    def __init__(self, wanted: Format = Format.AUTO) -> None:
        self.format = _decided(wanted)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows of things of one kind."""
        if self.format is Format.JSON:
            self._print(_compact([dict(zip(columns, row, strict=True)) for row in rows]))
        elif self.format is Format.AGENT:
            for row in (columns, *rows):
                self._print("\t".join(_cell(value) for value in row))
        elif self.format is Format.QUIET:
            for row in rows:
                self._print(_cell(row[0]))
        else:
            self._aligned(columns, rows)

    def result(self, facts: Mapping[str, Any]) -> None:
        """The facts that a command ends with."""
        if self.format is Format.JSON:
            self._print(_compact(facts))
        elif self.format is Format.QUIET:
            self._print(_cell(next(iter(facts.values()), "")))
        elif self.format is Format.AGENT:
            for name, value in facts.items():
                self._print(f"{name}={_cell(value)}")
        else:
            width = max((len(name) for name in facts), default=0)
            for name, value in facts.items():
                self._print(f"  {name.replace('_', ' '):<{width}}  {_cell(value)}")

    def text(self, words: str = "") -> None:
        """Words for a person; programs are spared them."""
        if self.format is Format.HUMAN:
            self._print(words)

    def step(self, name: str, words: str, seconds: float | None = None) -> None:
        """Progress: one line per part."""
        if self.format is Format.QUIET:
            return
        took = f"  {seconds:.1f} s" if seconds is not None else ""
        print(f"{name:<10} {escape(words)}{took}", file=sys.stderr, flush=True)

    def error(self, words: str) -> None:
        print(f"error: {escape(words)}", file=sys.stderr, flush=True)

    def hint(self, words: str) -> None:
        if self.format is not Format.QUIET:
            print(f"hint: {escape(words)}", file=sys.stderr, flush=True)

    def _aligned(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        cells = [[_cell(value) for value in row] for row in (columns, *rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
        for row in cells:
            padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            self._print("  ".join(padded).rstrip())

    def _print(self, line: str) -> None:
        print(line, flush=True)


def exit_code(error: LauncherError) -> Exit:
    """The code that tells a script what kind of failure it was."""
    if isinstance(error, AlreadyRunningError):
        return Exit.CONFLICT
    if isinstance(error, NotRunningError):
        return Exit.NOT_FOUND
    return Exit.UNAVAILABLE


def escape(text: str) -> str:
    """Printable text: control characters (newlines and tabs aside) as backslash codes."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in text
    )


def _cell(value: Any) -> str:
    text = "-" if value is None or value == "" else str(value)
    return escape(text).replace("\t", " ").replace("\n", " ")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)


def _decided(wanted: Format) -> Format:
    if wanted is not Format.AUTO:
        return wanted
    if any(os.environ.get(name) for name in AGENT_VARIABLES):
        return Format.AGENT
    return Format.HUMAN
