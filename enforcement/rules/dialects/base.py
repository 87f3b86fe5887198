"""What a dialect is: one way to ask an engine, and all that must be known to police it.

Rules of this package:

1. A module for each dialect, an object for each route. Whoever carries a call (front, admission,
   placement, relay) asks the object and never which dialect it is.
2. In and out are the same dialect, or the object translates (`upstream_family` differs).
3. `TokenUsage.input_tokens` is the whole prompt. Who reports it without cached tokens
   (Anthropic) is brought into that form here, before anything is priced.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from enforcement.rules.frames import Answer, Meter
from enforcement.rules.requests import Body, Endpoint, ParsedRequest
from enforcement.rules.verdicts import Refuse

EVENT_STREAM = b"text/event-stream"
JSON_LINES = b"application/x-ndjson"


class Engine(StrEnum):
    """What runs on a serving node."""

    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    UNKNOWN = "unknown"


class Family(StrEnum):
    """A group of routes that engines offer together."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama.cpp"


# What each engine speaks where nobody declares it. Of an unknown one only the common part is sure.
SPOKEN: dict[Engine, frozenset[Family]] = {
    Engine.LLAMA_CPP: frozenset(
        [Family.OPENAI, Family.RESPONSES, Family.ANTHROPIC, Family.LLAMA_CPP]
    ),
    Engine.VLLM: frozenset([Family.OPENAI, Family.RESPONSES, Family.ANTHROPIC]),
    Engine.OLLAMA: frozenset([Family.OLLAMA, Family.OPENAI, Family.RESPONSES, Family.ANTHROPIC]),
    Engine.OPENAI: frozenset([Family.OPENAI, Family.RESPONSES]),
    Engine.ANTHROPIC: frozenset([Family.ANTHROPIC]),
    Engine.UNKNOWN: frozenset([Family.OPENAI]),
}

# A question to an engine whose answers, added up, are the tokens of a prompt: path and body.
Question = tuple[str, dict[str, Any]]


class Dialect(ABC):
    """One route of one dialect. Without state: what it knows of a call is in the arguments."""

    endpoint: Endpoint
    path: str  # where clients call it
    family: str  # one of Family, or of a passed route
    generates = True  # its answers have an output limit
    stream_type = EVENT_STREAM  # how its streams are marked, by the engine and by us

    @property
    def upstream_family(self) -> str:
        """What the engine must speak."""
        return self.family

    @property
    def upstream_path(self) -> str:
        """Where the engine is called."""
        return self.path

    @property
    def upstream_stream_type(self) -> bytes:
        """How the engine marks its streams."""
        return self.stream_type

    # ------------------------------------------------------------------ requests

    @abstractmethod
    def parse(self, body: Body) -> ParsedRequest:
        """Read a body strictly.

        Raises:
            RequestError: it is refused; the message is meant for the caller.
        """

    def untranslatable(self, parsed: ParsedRequest) -> str:
        """A field that has no counterpart in the engine's words; empty if there is none."""
        return ""

    @abstractmethod
    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        """The body for upstream: with the output limit, and what makes the engine tell counts."""

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        """How to have this engine count the prompt exactly; nothing if it cannot be had."""
        return ()

    def passed_lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Whole lines of the client's head that the engine needs."""
        return b""

    # ------------------------------------------------------------------ answers

    @abstractmethod
    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        """A meter for a stream. `clamp_note`: for the event that ends by a limit of ours."""

    @abstractmethod
    def read_answer(self, body: bytes) -> Answer:
        """Read a whole answer of the engine, believing nothing that cannot be true."""

    def answer_body(self, body: bytes) -> bytes:
        """The engine's whole answer in the caller's dialect."""
        return body

    def error_body(self, body: bytes) -> bytes:
        """The engine's refusal in the caller's dialect."""
        return body

    @abstractmethod
    def refusal_body(self, refusal: Refuse, *, request_id: str) -> dict[str, Any]:
        """The JSON of a refusal, with our own fields beside the dialect's."""
