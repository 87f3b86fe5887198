"""Request bodies of the OpenAI dialect: parsed strictly, rebuilt with an output limit always set.

Rules of this file:

1. What is ambiguous is refused: duplicate keys at any depth, fields that we do not know, both
   spellings of the output limit. A field that we do not know could change what a request costs.
2. The body that goes upstream is written from what was understood here, never passed through, so
   no engine can read it differently.
3. `unseen` marks a request whose prompt the engine takes from elsewhere (images, audio, files,
   hosted tools, suffixes): its own bytes say nothing about its size.
"""

import json
from enum import StrEnum
from typing import Any, Never

import msgspec

MAX_DEPTH = 48
MAX_SEQUENCES = 128
MAX_PROMPTS = 2048
MAX_NAME = 256
MAX_OUTPUT_TOKENS = 10_000_000
MAX_LOGPROBS = 100  # alternatives of each token: they make an answer longer, not dearer

_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
_SAMPLING_NAMES = (
    "temperature top_p n stop presence_penalty frequency_penalty logit_bias logprobs seed user"
    " best_of top_k min_p repetition_penalty length_penalty stop_token_ids min_tokens ignore_eos"
    " include_stop_str_in_output skip_special_tokens spaces_between_special_tokens"
    " add_special_tokens allowed_token_ids bad_words guided_json guided_regex guided_choice"
    " guided_grammar structured_outputs priority cache_salt typical_p tfs_z repeat_penalty"
    " repeat_last_n mirostat mirostat_tau mirostat_eta dynatemp_range dynatemp_exponent"
    " dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers"
    " xtc_probability xtc_threshold top_n_sigma grammar json_schema cache_prompt samplers n_probs"
    " min_keep timings_per_token return_progress return_tokens reasoning_format"
)
_CHAT_NAMES = (
    "messages max_completion_tokens tools tool_choice parallel_tool_calls functions function_call"
    " top_logprobs response_format metadata service_tier store modalities audio reasoning_effort"
    " verbosity safety_identifier prompt_cache_key web_search_options add_generation_prompt"
    " continue_final_message chat_template_kwargs documents include_reasoning"
)
_SAMPLING = frozenset(_SAMPLING_NAMES.split())
_COMMON = frozenset(["model", "stream", "stream_options", "max_tokens"])
_CHAT = _COMMON | _SAMPLING | frozenset(_CHAT_NAMES.split())
_COMPLETIONS = _COMMON | _SAMPLING | frozenset(["prompt", "suffix", "echo", "response_format"])
_EMBEDDINGS = frozenset(["model", "input", "encoding_format", "dimensions", "user"])
_STREAM_OPTIONS = frozenset(["include_usage", "continuous_usage_stats", "include_obfuscation"])
_TEXT_PARTS = frozenset(["text", "refusal"])
_PLAIN_TOOLS = frozenset(["function", "custom"])

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Endpoint(StrEnum):
    """A route that spends. The value is the path behind `/v1/`."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


_FIELDS = {
    Endpoint.CHAT: _CHAT,
    Endpoint.COMPLETIONS: _COMPLETIONS,
    Endpoint.EMBEDDINGS: _EMBEDDINGS,
}


class RequestError(ValueError):
    """A body that is refused with 400. `param` names the field, `code` is stable."""

    def __init__(self, message: str, *, param: str = "", code: str = "invalid_request") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ParsedRequest(msgspec.Struct, gc=False):
    """What a decision needs to know about a request."""

    endpoint: Endpoint
    model: str
    fields: dict[str, Any]
    encoded: bytes  # the body as we would write it, without any addition
    stream: bool = False
    wants_usage: bool = False
    wants_running_usage: bool = False
    wants_timings: bool = False
    prompts: int = 1
    sequences: int = 1  # answers that the engine generates for each prompt
    output_limit: int | None = None
    limit_field: str = "max_tokens"
    prompt_tokens: int | None = None  # known exactly: the prompt came as token ids
    tools: tuple[str, ...] = ()
    parallel_tools: bool = True
    unseen: bool = False
    user: str = ""


def parse_request(endpoint: Endpoint, body: bytes) -> ParsedRequest:
    """Parse a body.

    Raises:
        RequestError: it is refused; the message is meant for the caller.
    """
    fields, encoded = _object_of(body)
    unknown = fields.keys() - _FIELDS[endpoint]
    if unknown:
        name = min(unknown)
        raise RequestError(f"Unknown field: {name!r}", param=name, code="unknown_field")
    parsed = ParsedRequest(
        endpoint=endpoint, model=_name(fields, "model"), fields=fields, encoded=encoded
    )
    if not parsed.model:
        _bad("model", "is required")
    parsed.user = _name(fields, "user")
    if endpoint is Endpoint.EMBEDDINGS:
        _read_prompt(parsed, "input")
        return parsed
    _read_stream(parsed)
    _read_output(parsed)
    if endpoint is Endpoint.CHAT:
        _read_messages(parsed)
        _read_tools(parsed)
    else:
        _read_prompt(parsed, "prompt")
        parsed.unseen = fields.get("suffix") is not None
    return parsed


def rerouted(parsed: ParsedRequest, model: str) -> ParsedRequest:
    """The same request for another model."""
    fields = parsed.fields | {"model": model}
    encoded = bytes(_encode(fields))
    return msgspec.structs.replace(parsed, model=model, fields=fields, encoded=encoded)


def forward_body(
    parsed: ParsedRequest, *, output_limit: int | None, limit_field: str, extra: dict[str, Any]
) -> bytes:
    """The body for upstream: as parsed, with the output limit and our additions written."""
    changes = dict(extra)
    if output_limit is not None:
        changes[limit_field] = output_limit
    fields = parsed.fields
    changes = {name: value for name, value in changes.items() if fields.get(name) != value}
    stale = [name for name in _LIMIT_FIELDS if name != limit_field and name in fields]
    if not changes and not stale:
        return parsed.encoded
    if not stale and not (changes.keys() & fields.keys()):  # append: no second encoding
        return parsed.encoded[:-1] + b"," + bytes(_encode(changes))[1:]
    merged = {name: value for name, value in fields.items() if name not in stale} | changes
    return bytes(_encode(merged))


def prompt_text_bytes(parsed: ParsedRequest) -> int:
    """Bytes of the request: an estimate of its size for charges without usage, not a bound."""
    return len(parsed.encoded)


def _object_of(body: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        value = _decode(body)
        encoded = bytes(_encode(value))
        if encoded != body:  # not our own compact form: let a slower parser look for duplicates
            json.loads(body, object_pairs_hook=_refuse_duplicates)
    except RequestError:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError, UnicodeError) as error:
        raise RequestError(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise RequestError("The body must be a JSON object", code="invalid_json")
    # Fewer brackets than the limit cannot nest deeper than it: the usual body is not walked.
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _too_deep(value):
        raise RequestError(f"The body nests deeper than {MAX_DEPTH} levels", code="too_deep")
    return value, encoded


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RequestError(
                    f"Duplicate key: {name[:64]!r}", param=name[:64], code="duplicate_key"
                )
            seen.add(name)
    return found


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return False
        level = below
    return True


def _bad(param: str, problem: str) -> Never:
    raise RequestError(f"{param!r} {problem}", param=param)


def _name(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isprintable():
        _bad(name, f"must be a printable string of at most {MAX_NAME} characters")
    return value


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        _bad(name, "must be true or false")
    return value


def _count(fields: dict[str, Any], name: str, *, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        _bad(name, f"must be an integer from 1 to {most}")
    return value


def _read_stream(parsed: ParsedRequest) -> None:
    fields = parsed.fields
    parsed.stream = _flag(fields, "stream")
    parsed.wants_timings = _flag(fields, "timings_per_token")
    options = fields.get("stream_options")
    if options is None:
        return
    if not isinstance(options, dict):
        _bad("stream_options", "must be an object")
    unknown = options.keys() - _STREAM_OPTIONS
    if unknown:
        name = f"stream_options.{min(unknown)}"
        raise RequestError(f"Unknown field: {name!r}", param=name, code="unknown_field")
    if not parsed.stream:
        _bad("stream_options", "needs 'stream': true")
    parsed.wants_usage = _flag(options, "include_usage")
    parsed.wants_running_usage = _flag(options, "continuous_usage_stats")


def _read_output(parsed: ParsedRequest) -> None:
    fields = parsed.fields
    limits = {
        name: limit
        for name in _LIMIT_FIELDS
        if (limit := _count(fields, name, most=MAX_OUTPUT_TOKENS)) is not None
    }
    if len(limits) > 1:
        raise RequestError(
            "'max_tokens' and 'max_completion_tokens' exclude each other",
            param="max_tokens",
            code="conflicting_fields",
        )
    for name, limit in limits.items():
        parsed.limit_field, parsed.output_limit = name, limit
    for name in ("logprobs", "top_logprobs"):
        if (alternatives := fields.get(name)) is not None and type(alternatives) is not bool:
            _check_alternatives(name, alternatives)
    count = _count(fields, "n", most=MAX_SEQUENCES) or 1
    best_of = _count(fields, "best_of", most=MAX_SEQUENCES) or 1
    parsed.sequences = max(count, best_of)


def _check_alternatives(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value <= MAX_LOGPROBS:
        _bad(name, f"must be an integer from 0 to {MAX_LOGPROBS}")


def _read_messages(parsed: ParsedRequest) -> None:
    messages = parsed.fields.get("messages")
    if not isinstance(messages, list) or not messages:
        _bad("messages", "must be a list with at least one message")
    for message in messages:
        if not isinstance(message, dict):
            _bad("messages", "must hold objects")
        if "audio" in message:
            parsed.unseen = True
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            _bad("messages.content", "must be a string or a list of parts")
        for part in content:
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                _bad("messages.content", "must hold parts with a 'type'")
            if part["type"] not in _TEXT_PARTS:
                parsed.unseen = True
    modalities = parsed.fields.get("modalities")
    if modalities not in (None, ["text"]) or parsed.fields.get("audio") is not None:
        parsed.unseen = True
    if parsed.fields.get("web_search_options") is not None:
        parsed.unseen = True


def _read_tools(parsed: ParsedRequest) -> None:
    tools = parsed.fields.get("tools")
    functions = parsed.fields.get("functions")
    if tools is None and functions is None:
        return
    names = []
    for field, offered in (("tools", tools), ("functions", functions)):
        if offered is None:
            continue
        if not isinstance(offered, list):
            _bad(field, "must be a list")
        for tool in offered:
            if not isinstance(tool, dict):
                _bad(field, "must hold objects")
            names.append(_tool_name(parsed, field, tool))
    parsed.tools = tuple(names)
    parsed.parallel_tools = (
        tools is not None and parsed.fields.get("parallel_tool_calls") is not False
    )


def _tool_name(parsed: ParsedRequest, field: str, tool: dict[str, Any]) -> str:
    described: Any = tool
    if field == "tools":
        kind = tool.get("type")
        if not isinstance(kind, str) or not kind:
            _bad("tools", "must hold objects with a 'type'")
        if kind not in _PLAIN_TOOLS:  # hosted by the provider: it brings context of its own
            parsed.unseen = True
            return kind
        described = tool.get(kind)
    name = described.get("name") if isinstance(described, dict) else None
    if not isinstance(name, str) or not name or len(name) > MAX_NAME:
        _bad(field, "must name every function")
    return name


def _read_prompt(parsed: ParsedRequest, field: str) -> None:
    prompt = parsed.fields.get(field)
    if isinstance(prompt, str):
        return
    if not isinstance(prompt, list) or not prompt:
        _bad(field, "must be a string or a list of strings or token ids")
    if all(type(item) is int for item in prompt):
        parsed.prompt_tokens = len(prompt)
        return
    if len(prompt) > MAX_PROMPTS:
        _bad(field, f"must hold at most {MAX_PROMPTS} prompts")
    parsed.prompts = len(prompt)
    if all(isinstance(item, str) for item in prompt):
        return
    if not all(_is_token_list(item) for item in prompt):
        _bad(field, "must hold only strings, or only lists of token ids")
    parsed.prompt_tokens = sum(len(item) for item in prompt)


def _is_token_list(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(type(token) is int for token in item)
