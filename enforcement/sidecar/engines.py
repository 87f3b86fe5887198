"""Serving nodes as the sidecar finds them: engine, models, window, and how each is spoken to.

Probed at start and every half minute. What is known of an engine decides three things: which
additions a request gets so that its tokens can be counted, how its prompt is counted exactly
beforehand, and how far its context window reaches.
"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from enforcement.rules.breaker import Breaker
from enforcement.rules.dialects import SPOKEN, Dialect, Engine, Family, anthropic, passes
from enforcement.rules.margins import margin_for
from enforcement.rules.requests import ParsedRequest, changed, rerouted
from enforcement.rules.wire import UpstreamInfo
from enforcement.sidecar.config import Config, UpstreamConfig
from enforcement.sidecar.http1 import ResponseHead
from enforcement.sidecar.slots import Slots
from enforcement.sidecar.upstream import Line, Pool, UpstreamConnection

MAX_PROBE_BYTES = 4 * 1024 * 1024
MAX_COUNTED_PROMPTS = 32
MAX_SHOWN_MODELS = 32
PROBE_TIMEOUT = 3.0
COUNT_TIMEOUT = 10.0
ANTHROPIC_ALONE = frozenset([Family.ANTHROPIC])
_HOSTS = {"api.openai.com": Engine.OPENAI, "api.anthropic.com": Engine.ANTHROPIC}


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


class _Shown(Struct):
    model_info: dict[str, Any] = {}


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

    def on_failure(self, reason: str, *, sent: bool, closed: bool = False) -> None:  # noqa: ARG002 -- the sink's protocol
        if not self.done.done():
            self.done.set_exception(FetchError(reason))


class Upstream:
    """One serving node."""

    def __init__(self, target: UpstreamConfig, config: Config, *, line: Line | None = None) -> None:
        self.target = target
        self.name = target.name
        self.pool: Line = line or Pool(target, config)
        self.engine = _HOSTS.get(target.host, Engine.UNKNOWN)
        self.provider = target.provider or (self.engine.value if target.host in _HOSTS else "")
        self.version = ""
        self._wire_names = dict(target.renamed)
        self.models: tuple[str, ...] = () if self.probed else target.models
        self.healthy = not self.probed
        self.last_error = "not probed yet" if self.probed else ""
        self.running = 0
        self.breaker = Breaker(failures=target.failures, rest_ns=int(target.rest * 1e9))
        limited = target.concurrency or target.concurrency_per_agent
        self.slots = Slots(target, workers=config.workers) if limited else None
        self._configured_window = target.context_window or config.context_window
        self._stops, self._declared_margin = config.stops, config.metered_margin_tokens
        self.margin_tokens: int | None = None  # of metered budgets; None: they hold strictly
        self._find_margin()
        self._probed_window: int | None = None
        self._path = target.path.encode("ascii")
        lines = [f"host: {target.host}:{target.port}"]
        self._is_anthropic = self.engine is Engine.ANTHROPIC or target.dialects == ANTHROPIC_ALONE
        if target.key and self._is_anthropic:
            lines.append(f"x-api-key: {target.key}")
        elif target.key:
            lines.append(f"authorization: Bearer {target.key}")
        self._starts: dict[bytes, bytes] = {}  # of requests, by path
        self._common = "\r\n".join([*lines, "accept-encoding: identity", ""]).encode("ascii")

    def available(self, now_ns: int) -> bool:
        """Whether calls are sent here now."""
        return self.healthy and not self.breaker.refuses(now_ns)

    @property
    def full(self) -> bool:
        """Whether another call would have to wait."""
        return self.slots is not None and self.slots.full

    @property
    def probed(self) -> bool:
        """Whether it is asked how it is. A paid API whose models are known never is."""
        return self.target.local or not self.target.models

    def as_sent(self, parsed: ParsedRequest, *, priority: int = 0) -> ParsedRequest:
        """The request as this node gets it: the model's name that it knows, the agent's priority.

        No caller sets its own priority. Engines that know one serve lower numbers first (vLLM).
        """
        name = self._wire_names.get(parsed.model) if self._wire_names else None
        if name is not None:
            parsed = rerouted(parsed, name)
        if self.target.priority and self.engine is Engine.VLLM:
            return changed(parsed, "priority", -priority)
        return changed(parsed, "priority", None) if "priority" in parsed.fields else parsed

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

    @property
    def paid(self) -> bool:
        """Whether it is a provider's API: what it makes unseen, and when it stops, nobody knows."""
        return self.engine in (Engine.OPENAI, Engine.ANTHROPIC) or not self.target.local

    @property
    def runs_tools(self) -> bool:
        """Whether it may run tools by itself, in rounds. llama.cpp and Ollama leave those out."""
        return self.engine not in (Engine.LLAMA_CPP, Engine.OLLAMA)

    @property
    def spoken(self) -> frozenset[str]:
        """The dialects that it can be asked in: as declared, else as the engine does."""
        declared = self.target.dialects or SPOKEN[self.engine]
        return declared.union(map(passes, self.target.passes))

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
        start = self._starts.get(path)
        if start is None:
            start = self._starts[path] = (
                b"POST %b%b HTTP/1.1\r\n%bcontent-type: application/json\r\ncontent-length: "
                % (self._path, path, self._common)
            )
        return b"%b%d\r\n%b\r\n" % (start, length, headers)

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
            if self._is_anthropic:
                head += b"anthropic-version: %b\r\n" % anthropic.VERSION
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
        if not self.probed or (self.models and not self.target.local):
            return
        try:
            status, body = await self.fetch("GET", "/v1/models")
            if status != 200:
                raise FetchError(f"/v1/models answers {status}")
            models = msgspec.json.decode(body, type=_Models).data
        except (FetchError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            self.healthy = False
            self.last_error = str(error) or type(error).__name__
            return
        self.models = self._served([model.id for model in models if model.id])
        self.healthy, self.last_error = True, ""
        if self.target.host not in _HOSTS:
            await self._identify(models)
        self._find_margin()

    def _find_margin(self) -> None:
        self.margin_tokens = margin_for(
            self._stops,
            node=self.name,
            engine=self.engine.value,
            version=self.version,
            declared=self._declared_margin,
        )

    def _served(self, listed: list[str]) -> tuple[str, ...]:
        """The models that it is asked for, of those that it lists."""
        if not self.target.models:
            return tuple(listed)
        wire = self._wire_names
        return tuple(name for name in self.target.models if wire.get(name, name) in listed)

    async def _identify(self, models: list[_Model]) -> None:
        owners = {model.owned_by for model in models}
        windows = [model.max_model_len for model in models if model.max_model_len]
        if "vllm" not in owners and (
            await self._probe_llama_cpp() or await self._probe_ollama(owners)
        ):
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

    async def _probe_ollama(self, owners: set[str]) -> bool:
        """Ollama owns its models as `library`; what a model can see is told for each."""
        if owners != {"library"}:
            return False
        version = await self._question("/api/version", _Version)
        if version is None or not version.version:
            return False
        self.engine, self.version = Engine.OLLAMA, version.version
        windows = [await self._window_of(model) for model in self.models[:MAX_SHOWN_MODELS]]
        if windows and all(windows) and len(self.models) <= MAX_SHOWN_MODELS:
            self._probed_window = max(window or 0 for window in windows)
        return True

    async def _window_of(self, model: str) -> int | None:
        """The longest context that Ollama gives a model, whatever `num_ctx` a call asks for."""
        body = msgspec.json.encode({"model": model})
        with suppress(FetchError, msgspec.MsgspecError, ValueError, RecursionError):
            status, page = await self.fetch("POST", "/api/show", body)
            if status == 200:
                facts = msgspec.json.decode(page, type=_Shown).model_info
                lengths = [v for name, v in facts.items() if name.endswith(".context_length")]
                return next((value for value in lengths if type(value) is int and value > 0), None)
        return None

    async def _question(self, path: str, kind: type[Any]) -> Any:
        with suppress(FetchError, msgspec.MsgspecError, ValueError, RecursionError):
            status, body = await self.fetch("GET", path)
            if status == 200:
                return msgspec.json.decode(body, type=kind)
        return None

    async def count_prompt(self, dialect: Dialect, parsed: ParsedRequest) -> int | None:
        """The exact tokens of a prompt as this engine renders it; None if it cannot be had."""
        parsed = self.as_sent(parsed)
        questions = dialect.questions(parsed, self.engine)
        if not 0 < len(questions) <= MAX_COUNTED_PROMPTS:
            return None
        try:
            counts = [await self._count(path, fields) for path, fields in questions]
        except (FetchError, msgspec.MsgspecError, ValueError):
            return None
        return sum(counts)

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
