"""What every client is asked to do, and what it saw: one form for all of them.

Only the standard library: drivers run in environments of their own.
"""

from dataclasses import dataclass, field
from typing import Any

TOOL = "search"
NOTES = "the notes of the agent"  # what an agent finds in its notes.txt
WORDS = "Tell a long story."


@dataclass(frozen=True)
class Ask:
    """One call. `kind`: whole, stream or tools (a whole answer with one tool on offer)."""

    url: str  # of the sidecar, without a path
    key: str
    model: str
    kind: str
    max_tokens: int = 20


@dataclass
class Seen:
    """What the client's own interface told, its own retries included.

    `note`: the `comptroller` object, where the client shows fields that it does not know.
    """

    text: str = ""
    finish: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    tools: list[str] = field(default_factory=list)  # names of what it was told to call
    note: dict[str, Any] = field(default_factory=dict)
    error: str = ""  # the class of the client's error
    status: int | None = None
    message: str = ""
