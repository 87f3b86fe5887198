"""A route that nobody here understands, passed on because the operator says so.

1. JSON in, JSON out, whole: nothing else can be bounded or booked. Keys that stand twice are
   refused, and what goes on is written anew, as everywhere.
2. It is metered as a request: one for budgets of requests, its time for `gpu_ms`, and what its
   price says for each request. What it may use of tokens and money beside that, nobody knows:
   under a hard budget of these it is refused.
3. An agent that needs a skill card needs one that names the tool `route:PATH`.
"""

from typing import Any

import msgspec

from enforcement.rules.dialects.base import Dialect, Engine
from enforcement.rules.frames import Answer, Meter
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import (
    Body,
    Endpoint,
    ParsedRequest,
    RequestError,
    name_of,
    object_of,
)
from enforcement.rules.stream import StreamMeter
from enforcement.rules.verdicts import Refuse, refusal_body


class Passed(Dialect):
    """`POST` of one path, to the nodes that pass it."""

    endpoint = Endpoint.PASSED
    generates = False

    def __init__(self, path: str) -> None:
        self.path = path
        self.family = passes(path)

    def parse(self, body: Body) -> ParsedRequest:
        fields, encoded = object_of(body)
        if fields.get("stream"):
            raise RequestError(
                "Streams of this route cannot be metered", param="stream", code="not_metered"
            )
        return ParsedRequest(
            self.endpoint,
            name_of(fields, "model"),
            fields,
            encoded,
            prompt_tokens=0,
            tools=(f"route:{self.path}",),
            opaque=True,
        )

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        return parsed.encoded

    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        return StreamMeter()

    def read_answer(self, body: bytes) -> Answer:
        try:
            msgspec.json.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return Answer()
        return Answer(valid=True, usage=TokenUsage())

    def refusal_body(self, refusal: Refuse, *, request_id: str) -> dict[str, Any]:
        return refusal_body(refusal, request_id=request_id)


def passes(path: str) -> str:
    """What a node speaks that passes this path: a family of its own."""
    return f"POST {path}"
