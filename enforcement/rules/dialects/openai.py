"""OpenAI's Chat Completions, Completions and Embeddings, as vLLM, llama.cpp and others speak them.

Source: the OpenAI API reference; vLLM's and llama.cpp's additions to it from their servers' docs.
`prompt_tokens` includes cached ones.
"""

from collections.abc import Sequence
from typing import Any

from enforcement.rules.dialects.base import Dialect, Engine, Family, Question
from enforcement.rules.frames import Answer, Meter
from enforcement.rules.requests import (
    MAX_SEQUENCES,
    Body,
    Endpoint,
    ParsedRequest,
    bad,
    check_known,
    count_of,
    flag_of,
    name_of,
    object_in,
    object_of,
    objects_in,
    one_limit,
    read_prompt,
    rewritten,
    tool_name,
    words,
)
from enforcement.rules.stream import StreamMeter, read_answer
from enforcement.rules.verdicts import Refuse, refusal_body

MAX_LOGPROBS = 100  # alternatives of each token: they make an answer longer, not dearer
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
SAMPLING = words(
    "temperature top_p n stop presence_penalty frequency_penalty logit_bias logprobs seed user"
    " best_of top_k min_p repetition_penalty length_penalty stop_token_ids min_tokens"
    " ignore_eos include_stop_str_in_output skip_special_tokens"
    " spaces_between_special_tokens add_special_tokens allowed_token_ids bad_words guided_json"
    " guided_regex guided_choice guided_grammar structured_outputs priority cache_salt"
    " typical_p tfs_z repeat_penalty repeat_last_n mirostat mirostat_tau mirostat_eta"
    " dynatemp_range dynatemp_exponent dry_multiplier dry_base dry_allowed_length"
    " dry_penalty_last_n dry_sequence_breakers xtc_probability xtc_threshold top_n_sigma"
    " grammar json_schema cache_prompt samplers n_probs min_keep timings_per_token"
    " return_progress return_tokens reasoning_format"
)
_COMMON = frozenset(["model", "stream", "stream_options", "max_tokens"])
_CHAT = (
    _COMMON
    | SAMPLING
    | words(
        "messages max_completion_tokens tools tool_choice parallel_tool_calls functions"
        " function_call top_logprobs response_format metadata service_tier store modalities"
        " audio reasoning_effort verbosity safety_identifier prompt_cache_key"
        " web_search_options add_generation_prompt continue_final_message"
        " chat_template_kwargs documents include_reasoning prompt_cache_options"
        " prompt_cache_retention"
    )
)
_COMPLETIONS = _COMMON | SAMPLING | frozenset(["prompt", "suffix", "echo", "response_format"])
_EMBEDDINGS = frozenset(["model", "input", "encoding_format", "dimensions", "user"])
CACHE_OPTIONS = frozenset(["mode", "ttl"])
_STREAM_OPTIONS = frozenset(["include_usage", "continuous_usage_stats", "include_obfuscation"])
_TEXT_PARTS = frozenset(["text", "refusal"])
_PLAIN_TOOLS = frozenset(["function", "custom"])


class OpenAI(Dialect):
    """What the three routes share."""

    family = Family.OPENAI
    known: frozenset[str]

    def parse(self, body: Body) -> ParsedRequest:
        fields, encoded = object_of(body)
        check_known(fields, self.known)
        parsed = ParsedRequest(self.endpoint, name_of(fields, "model"), fields, encoded)
        if not parsed.model:
            bad("model", "is required")
        parsed.user = name_of(fields, "user")
        self._read(parsed)
        return parsed

    def _read(self, parsed: ParsedRequest) -> None:
        read_prompt(parsed, "input")

    def forward_body(
        self, parsed: ParsedRequest, *, output_limit: int | None, engine: Engine
    ) -> bytes:
        changes = _additions(parsed, engine)
        stale: list[str] = []
        if output_limit is not None:
            name = self._limit_field(engine)
            changes[name] = output_limit
            stale = [other for other in LIMIT_FIELDS if other != name]
        return rewritten(parsed, changes, dropped=stale)

    def _limit_field(self, engine: Engine) -> str:
        return "max_tokens"

    def meter(self, parsed: ParsedRequest, *, clamp_note: bytes = b"") -> Meter:
        return StreamMeter(
            chat=self.endpoint is Endpoint.CHAT,
            strip_usage=not parsed.wants_usage,
            strip_running=not parsed.wants_running_usage,
            strip_timings=not parsed.wants_timings,
            clamp_note=clamp_note,
        )

    def read_answer(self, body: bytes) -> Answer:
        return read_answer(body)

    def refusal_body(self, refusal: Refuse, *, request_id: str) -> dict[str, Any]:
        return refusal_body(refusal, request_id=request_id)


class Chat(OpenAI):
    """`POST /v1/chat/completions`."""

    endpoint = Endpoint.CHAT
    path = "/v1/chat/completions"
    known = _CHAT

    def _read(self, parsed: ParsedRequest) -> None:
        _read_stream(parsed)
        _read_output(parsed)
        _read_messages(parsed)
        _read_tools(parsed)
        options = object_in(parsed.fields, "prompt_cache_options")
        check_known(options, CACHE_OPTIONS, inside="prompt_cache_options")

    def _limit_field(self, engine: Engine) -> str:
        return "max_completion_tokens" if engine is Engine.OPENAI else "max_tokens"

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        if engine is Engine.LLAMA_CPP:
            fields = {name: value for name, value in parsed.fields.items() if name != "stream"}
            fields.pop("stream_options", None)
            return [("/v1/chat/completions/input_tokens", fields)]
        kept = ("model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt")
        fields = {name: parsed.fields[name] for name in kept if name in parsed.fields}
        return [("/tokenize", {"add_generation_prompt": True} | fields)]


class Completions(OpenAI):
    """`POST /v1/completions`."""

    endpoint = Endpoint.COMPLETIONS
    path = "/v1/completions"
    known = _COMPLETIONS

    def _read(self, parsed: ParsedRequest) -> None:
        _read_stream(parsed)
        _read_output(parsed)
        read_prompt(parsed, "prompt")
        parsed.unseen = parsed.fields.get("suffix") is not None

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        return text_questions(parsed.model, parsed.fields["prompt"], engine)


class Embeddings(OpenAI):
    """`POST /v1/embeddings`."""

    endpoint = Endpoint.EMBEDDINGS
    path = "/v1/embeddings"
    known = _EMBEDDINGS
    generates = False

    def questions(self, parsed: ParsedRequest, engine: Engine) -> Sequence[Question]:
        return text_questions(parsed.model, parsed.fields["input"], engine)


def text_questions(model: str, prompt: str | list[str], engine: Engine) -> list[Question]:
    """How to have plain texts counted, each with its special tokens."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if engine is Engine.LLAMA_CPP:
        return [("/tokenize", {"content": text, "add_special": True}) for text in texts]
    return [
        ("/tokenize", {"model": model, "prompt": text, "add_special_tokens": True})
        for text in texts
    ]


def _additions(parsed: ParsedRequest, engine: Engine) -> dict[str, Any]:
    """Fields that make the engine tell its counts, running ones where it can."""
    if not parsed.stream:
        return {}
    options = dict(parsed.fields.get("stream_options") or {})
    options["include_usage"] = True
    if engine is Engine.VLLM:
        options["continuous_usage_stats"] = True
    added: dict[str, Any] = {"stream_options": options}
    if engine is Engine.LLAMA_CPP:
        added["timings_per_token"] = True
    return added


def _read_stream(parsed: ParsedRequest) -> None:
    fields = parsed.fields
    parsed.stream = flag_of(fields, "stream")
    parsed.wants_timings = flag_of(fields, "timings_per_token")
    if fields.get("stream_options") is None:
        return
    options = object_in(fields, "stream_options")
    check_known(options, _STREAM_OPTIONS, inside="stream_options")
    if not parsed.stream:
        bad("stream_options", "needs 'stream': true")
    parsed.wants_usage = flag_of(options, "include_usage")
    parsed.wants_running_usage = flag_of(options, "continuous_usage_stats")


def _read_output(parsed: ParsedRequest) -> None:
    one_limit(parsed, LIMIT_FIELDS)
    for name in ("logprobs", "top_logprobs"):
        if (alternatives := parsed.fields.get(name)) is not None:
            _check_alternatives(name, alternatives)
    count = count_of(parsed.fields, "n", most=MAX_SEQUENCES) or 1
    best_of = count_of(parsed.fields, "best_of", most=MAX_SEQUENCES) or 1
    parsed.sequences = max(count, best_of)


def _check_alternatives(name: str, value: object) -> None:
    if type(value) is bool:
        return
    if type(value) is not int or not 0 <= value <= MAX_LOGPROBS:
        bad(name, f"must be an integer from 0 to {MAX_LOGPROBS}")


def _read_messages(parsed: ParsedRequest) -> None:
    messages = parsed.fields.get("messages")
    if not isinstance(messages, list) or not messages:
        bad("messages", "must be a list with at least one message")
    for message in messages:
        if not isinstance(message, dict):
            bad("messages", "must hold objects")
        if "audio" in message:
            parsed.unseen = True
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            bad("messages.content", "must be a string or a list of parts")
        for part in content:
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                bad("messages.content", "must hold parts with a 'type'")
            if part["type"] not in _TEXT_PARTS:
                parsed.unseen = True
    modalities = parsed.fields.get("modalities")
    if modalities not in (None, ["text"]) or parsed.fields.get("audio") is not None:
        parsed.unseen = True
    if parsed.fields.get("web_search_options") is not None:
        parsed.hosted = parsed.unseen = True


def _read_tools(parsed: ParsedRequest) -> None:
    if parsed.fields.get("tools") is None and parsed.fields.get("functions") is None:
        return
    tools, functions = objects_in(parsed.fields, "tools"), objects_in(parsed.fields, "functions")
    names = [_offered(parsed, tool) for tool in tools]
    names += [tool_name(function, "functions") for function in functions]
    parsed.tools = tuple(names)
    parsed.parallel_tools = (
        parsed.fields.get("tools") is not None
        and parsed.fields.get("parallel_tool_calls") is not False
    )


def _offered(parsed: ParsedRequest, tool: dict[str, Any]) -> str:
    kind = tool.get("type")
    if not isinstance(kind, str) or not kind:
        bad("tools", "must hold objects with a 'type'")
    if kind not in _PLAIN_TOOLS:  # the provider runs it, and brings context of its own
        parsed.hosted = parsed.unseen = True
        return kind
    return tool_name(tool.get(kind), "tools")
