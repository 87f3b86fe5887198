"""llama.cpp's own `/completion`.

Source: the README of llama.cpp's server. Every event of a stream carries the running counts;
`tokens_evaluated` includes what was read from the cache, which `timings.cache_n` tells.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.dialects.base import Dialect, Engine, Family, Question
from enforcement.rules.dialects.openai import SAMPLING, text_questions
from enforcement.rules.frames import Answer, FrameMeter, Meter, encode, plausible
from enforcement.rules.money import TokenUsage
from enforcement.rules.requests import (
    MAX_SEQUENCES,
    Body,
    Endpoint,
    ParsedRequest,
    check_known,
    count_of,
    flag_of,
    name_of,
    object_of,
    one_limit,
    read_prompt,
    rewritten,
    words,
)
from enforcement.rules.verdicts import Refuse, refusal_facts

_LIMIT_FIELDS = ("n_predict", "max_tokens")
_SEQUENCE_FIELDS = ("n_cmpl", "n")
_KNOWN = (
    SAMPLING
    | words(
        "model prompt stream n_predict max_tokens n_cmpl n_keep n_indent t_max_predict_ms"
        " id_slot return_progress post_sampling_probs"
    )
) - frozenset(["best_of"])
_WRONG = (msgspec.MsgspecError, ValueError, RecursionError)


class _Timings(Struct, gc=False):
    cache_n: int = 0


class _Result(Struct, gc=False):
    stop: bool = False
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    stop_type: str = ""
    model: str = ""
    timings: _Timings | None = None
    error: Any = None
    index: int = 0


_decode_result = msgspec.json.Decoder(_Result).decode
_decode_results = msgspec.json.Decoder(list[_Result]).decode


def _usage_of(results: Sequence[_Result]) -> TokenUsage:
    return TokenUsage(
        input_tokens=sum(result.tokens_evaluated for result in results),
        cached_input_tokens=sum(r.timings.cache_n for r in results if r.timings is not None),
        output_tokens=sum(result.tokens_predicted for result in results),
    )


class CompletionMeter(FrameMeter):
    """The meter of a native stream; several prompts share it, each with an index."""

    __slots__ = ("_ends", "_expected", "_latest")

    limit_word = "limit"

    def __init__(self, *, expected: int = 1, clamp_note: bytes = b"") -> None:
        super().__init__(clamp_note=clamp_note)
        self._latest: dict[int, _Result] = {}
        self._expected = expected
        self._ends = 0

    def _event(self, data: bytes) -> None:
        try:
            result = _decode_result(data)
        except _WRONG:
            self.disputed = True
            return
        if result.error is not None:
            return
        if len(self._latest) >= self._expected and result.index not in self._latest:
            self.disputed = True  # more answers than were asked for
            return
        self._latest[result.index] = result
        self.events += not result.stop
        if result.stop:
            self._ends += 1
            self._stop = result.stop_type or self._stop
            self.done = self._ends >= self._expected
        self._learn(_usage_of(list(self._latest.values())))
        if self.usage is not None:
            self.running = max(self.running or 0, self.usage.output_tokens)

    def cut_ending(
        self, note: dict[str, Any], *, request_id: str, input_tokens: int | None
    ) -> bytes:
        event = {
            "index": 0,
            "content": "",
            "tokens": [],
            "stop": True,
            "stop_type": "limit",
            "stopping_word": "",
            "truncated": False,
            "tokens_predicted": self.produced,
            "tokens_evaluated": input_tokens or 0,
            "comptroller": note,
        }
        return b"data: %b\n\n" % encode(event)

    def error_ending(self, body: dict[str, Any]) -> bytes:
        return b"data: %b\n\n" % encode(body)


class Completion(Dialect):
    """`POST /completion`."""

    endpoint = Endpoint.COMPLETION
    path = "/completion"
    family = Family.LLAMA_CPP

    def parse(self, body: Body) -> ParsedRequest:
        fields, encoded = object_of(body)
        check_known(fields, _KNOWN)
        for name in _LIMIT_FIELDS:
            if fields.get(name) in (-1, -2):  # without end, or to the end of the window
                fields[name] = None
        parsed = ParsedRequest(self.endpoint, name_of(fields, "model"), fields, encoded)
        parsed.stream = flag_of(fields, "stream")
        parsed.wants_usage = True
        one_limit(parsed, _LIMIT_FIELDS)
        counts = [count_of(fields, name, most=MAX_SEQUENCES) or 1 for name in _SEQUENCE_FIELDS]
        parsed.sequences = max(counts)
        read_prompt(parsed, "prompt")
        return parsed

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        changes: dict[str, Any] = {} if output_limit is None else {"n_predict": output_limit}
        return rewritten(parsed, changes, dropped=["max_tokens"])

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        return text_questions(parsed.model, parsed.fields["prompt"], engine)

    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        return CompletionMeter(expected=parsed.prompts * parsed.sequences, clamp_note=clamp_note)

    def read_answer(self, body: bytes) -> Answer:
        try:
            many = body.lstrip().startswith(b"[")
            results = _decode_results(body) if many else [_decode_result(body)]
        except _WRONG:
            return Answer()
        if not results:
            return Answer()
        if results[0].error is not None:
            return Answer(valid=True)
        usage = _usage_of(results)
        believed = plausible(usage) and usage.input_tokens + usage.output_tokens > 0
        return Answer(
            valid=True,
            usage=usage if believed else None,
            disputed=not believed,
            finish_reason=results[0].stop_type,
            limited=results[0].stop_type == "limit",
        )

    def refusal_body(self, refusal: Refuse, *, request_id: str) -> dict[str, Any]:
        return llamacpp_refusal(refusal, request_id=request_id)


def llamacpp_refusal(refusal: Refuse, *, request_id: str) -> dict[str, Any]:
    """A refusal as llama.cpp words its errors: the code is the status."""
    facts = refusal_facts(refusal, request_id=request_id)
    reason = facts.get("reason") or facts["code"]
    return {"error": facts | {"code": refusal.status, "type": refusal.type, "reason": reason}}
