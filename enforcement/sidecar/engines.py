"""Serving nodes as the sidecar finds them: engine, models, window, and how each is spoken to.

Probed at start and every half minute. What is known of an engine decides three things: which
additions a request gets so that its tokens can be counted, how its prompt is counted exactly
beforehand, and how far its context window reaches.
"""

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.requests import Endpoint, ParsedRequest
from enforcement.rules.wire import UpstreamInfo
from enforcement.sidecar.config import Config, UpstreamConfig
from enforcement.sidecar.http1 import ResponseHead
from enforcement.sidecar.upstream import Line, Pool, UpstreamConnection

MAX_PROBE_BYTES = 4 * 1024 * 1024
MAX_COUNTED_PROMPTS = 32
PROBE_TIMEOUT = 3.0
COUNT_TIMEOUT = 10.0
OPENAI_HOST = "api.openai.com"


class Engine(StrEnum):
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    OPENAI = "openai"
    UNKNOWN = "unknown"


# Tokens that an engine may make between the last one that was seen and its stop. Measured by
# closing streams and reading the engine's counters: llama.cpp 0 to 1, vLLM 0 to 4.
ABORT_TOKENS = {Engine.LLAMA_CPP: 1, Engine.VLLM: 4}
UNMEASURED_ABORT_TOKENS = 16


class FetchError(Exception):
    """A small question to a node got no usable answer."""


class _Model(Struct):
    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    meta: dict[str, Any] | None = None


class _Models(Struct):
    data: list[_Model] = []


class _Generation(Struct):
    n_ctx: int | None = None


class _Props(Struct):
    default_generation_settings: _Generation
    build_info: str = ""


class _Version(Struct):
    version: str = ""


class _Counted(Struct):
    """Answers of the three ways to count a prompt."""

    input_tokens: int | None = None
    count: int | None = None
    tokens: list[Any] | None = None


class _Fetch:
    """A sink for small answers."""

    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.connection: UpstreamConnection | None = None
        self._status = 0
        self._parts: list[bytes] = []
        self._size = 0

    def on_connected(self, connection: UpstreamConnection) -> bool:
        self.connection = connection
        return not self.done.done()

    def on_head(self, head: ResponseHead) -> None:
        self._status = head.status

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_PROBE_BYTES:
            self._parts.append(data)

    def on_end(self) -> None:
        if self.done.done():
            return
        if self._size > MAX_PROBE_BYTES:
            self.done.set_exception(FetchError("the answer is too large"))
        else:
            self.done.set_result((self._status, b"".join(self._parts)))

    def on_failure(self, reason: str, *, sent: bool) -> None:  # noqa: ARG002 -- the sink's protocol
        if not self.done.done():
            self.done.set_exception(FetchError(reason))


class Upstream:
    """One serving node."""

    def __init__(self, target: UpstreamConfig, config: Config, *, line: Line | None = None) -> None:
        self.target = target
        self.name = target.name
        self.pool: Line = line or Pool(target, config)
        self.engine = Engine.OPENAI if target.host == OPENAI_HOST else Engine.UNKNOWN
        self.provider = target.provider or ("openai" if self.engine is Engine.OPENAI else "")
        self.version = ""
        self.models: tuple[str, ...] = ()
        self.healthy = False
        self.last_error = "not probed yet"
        self.running = 0
        self._configured_window = config.context_window
        self._probed_window: int | None = None
        self._path = target.path.encode("ascii")
        lines = [f"host: {target.host}:{target.port}"]
        if target.key:
            lines.append(f"authorization: Bearer {target.key}")
        self._common = "\r\n".join([*lines, "accept-encoding: identity", ""]).encode("ascii")

    @property
    def abort_tokens(self) -> int:
        """What the engine may make unseen after it was told to stop."""
        return ABORT_TOKENS.get(self.engine, UNMEASURED_ABORT_TOKENS)

    @property
    def context_window(self) -> int | None:
        """What the engine says; what we were told, where it says nothing."""
        return self._probed_window or self._configured_window

    @property
    def counts_prompts(self) -> bool:
        return self.engine in (Engine.LLAMA_CPP, Engine.VLLM)

    def info(self) -> UpstreamInfo:
        """What the control plane learns of this node."""
        return UpstreamInfo(
            name=self.name,
            base_url=self.target.base_url,
            engine=self.engine.value,
            engine_version=self.version,
            provider=self.provider,
            models=list(self.models),
            context_window=self.context_window,
            metrics_path="/metrics" if self.counts_prompts else "",
        )

    # ------------------------------------------------------------------ requests

    def request_head(self, path: bytes, *, length: int, headers: bytes = b"") -> bytes:
        """The head of a POST. `headers`: whole lines."""
        start = b"POST %b%b HTTP/1.1\r\n%b" % (self._path, path, self._common)
        return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n" % (
            start,
            length,
            headers,
        )

    def limit_field(self, parsed: ParsedRequest) -> str:
        """How this engine spells the output limit."""
        if self.engine is Engine.OPENAI and parsed.endpoint is Endpoint.CHAT:
            return "max_completion_tokens"
        return "max_tokens"

    def additions(self, parsed: ParsedRequest) -> dict[str, Any]:
        """Fields that make the engine tell its counts, running ones where it can."""
        if not parsed.stream:
            return {}
        options = dict(parsed.fields.get("stream_options") or {})
        options["include_usage"] = True
        if self.engine is Engine.VLLM:
            options["continuous_usage_stats"] = True
        added: dict[str, Any] = {"stream_options": options}
        if self.engine is Engine.LLAMA_CPP:
            added["timings_per_token"] = True
        return added

    # ------------------------------------------------------------------ questions

    async def fetch(
        self, method: str, path: str, body: bytes | None = None, *, within: float = PROBE_TIMEOUT
    ) -> tuple[int, bytes]:
        """Ask the node something small.

        Raises:
            FetchError: no complete answer within the time.
        """
        sink = _Fetch()
        if body is None:
            head = f"{method} {self.target.path}{path} HTTP/1.1\r\n".encode("ascii")
            pieces = [head + self._common + b"\r\n"]
        else:
            pieces = [self.request_head(path.encode("ascii"), length=len(body)), body]
        connection = self.pool.send(sink, pieces)
        try:
            async with asyncio.timeout(within):
                return await sink.done
        except TimeoutError as error:
            raise FetchError("no answer in time") from error
        finally:
            connection = connection or sink.connection
            if connection is not None and connection.sink is sink:
                connection.drop()

    async def probe(self) -> None:
        """Find out what runs there."""
        try:
            status, body = await self.fetch("GET", "/v1/models")
            if status != 200:
                raise FetchError(f"/v1/models answers {status}")
            models = msgspec.json.decode(body, type=_Models).data
        except (FetchError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            self.healthy = False
            self.last_error = str(error) or type(error).__name__
            return
        self.models = tuple(model.id for model in models if model.id)
        self.healthy, self.last_error = True, ""
        if self.engine is not Engine.OPENAI:
            await self._identify(models)

    async def _identify(self, models: list[_Model]) -> None:
        owners = {model.owned_by for model in models}
        windows = [model.max_model_len for model in models if model.max_model_len]
        if "vllm" not in owners and await self._probe_llama_cpp():
            return
        version = await self._question("/version", _Version) if "vllm" in owners else None
        if version is not None and version.version:
            self.engine, self.version = Engine.VLLM, version.version
        if windows:
            self._probed_window = min(windows)

    async def _probe_llama_cpp(self) -> bool:
        props = await self._question("/props", _Props)
        if props is None or not props.default_generation_settings.n_ctx:
            return False
        self.engine, self.version = Engine.LLAMA_CPP, props.build_info
        self._probed_window = props.default_generation_settings.n_ctx
        return True

    async def _question(self, path: str, kind: type[Any]) -> Any:
        with suppress(FetchError, msgspec.MsgspecError, ValueError, RecursionError):
            status, body = await self.fetch("GET", path)
            if status == 200:
                return msgspec.json.decode(body, type=kind)
        return None

    async def count_prompt(self, parsed: ParsedRequest) -> int | None:
        """The exact tokens of a prompt as this engine renders it; None if it cannot be had."""
        try:
            if parsed.endpoint is Endpoint.CHAT:
                return await self._count(*self._chat_question(parsed))
            field = "prompt" if parsed.endpoint is Endpoint.COMPLETIONS else "input"
            prompt = parsed.fields[field]
            prompts = [prompt] if isinstance(prompt, str) else prompt
            if len(prompts) > MAX_COUNTED_PROMPTS:
                return None
            counts = [await self._count(*self._text_question(parsed, text)) for text in prompts]
        except (FetchError, msgspec.MsgspecError, ValueError):
            return None
        return sum(counts)

    def _chat_question(self, parsed: ParsedRequest) -> tuple[str, dict[str, Any]]:
        if self.engine is Engine.LLAMA_CPP:
            fields = {name: value for name, value in parsed.fields.items() if name != "stream"}
            fields.pop("stream_options", None)
            return "/v1/chat/completions/input_tokens", fields
        kept = ("model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt")
        fields = {name: parsed.fields[name] for name in kept if name in parsed.fields}
        return "/tokenize", {"add_generation_prompt": True} | fields

    def _text_question(self, parsed: ParsedRequest, text: str) -> tuple[str, dict[str, Any]]:
        if self.engine is Engine.LLAMA_CPP:
            return "/tokenize", {"content": text, "add_special": True}
        return "/tokenize", {"model": parsed.model, "prompt": text, "add_special_tokens": True}

    async def _count(self, path: str, fields: dict[str, Any]) -> int:
        status, body = await self.fetch(
            "POST", path, msgspec.json.encode(fields), within=COUNT_TIMEOUT
        )
        if status != 200:
            raise FetchError(f"{path} answers {status}")
        said = msgspec.json.decode(body, type=_Counted)
        count = said.input_tokens if said.input_tokens is not None else said.count
        if count is None and said.tokens is not None:
            count = len(said.tokens)
        if count is None or count < 0:
            raise FetchError(f"{path} gives no count")
        return count
