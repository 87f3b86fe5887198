"""A reported call, whoever told of it, and the usage event that it becomes.

1. The event's id follows from organization, source and the source's own name of the call: said
   again it is the same event, and no organization can take an id of another.
2. Counts are whole numbers of zero or more, and none is beyond what a model can read or write:
   anything else is an error in words, never a guess.
3. Parts that are more than their whole were not counted in it (Anthropic's own API counts cached
   tokens apart): they are added to it, as prices and budgets read `input_tokens` as the total.
4. Prompts and answers are never looked at.
"""

from enum import StrEnum
from math import isfinite
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from msgspec import Struct, field

from enforcement.rules.money import TokenUsage
from enforcement.rules.wire import Outcome, UsageEvent

MAX_TOKENS = 100_000_000  # of one call: a hundred times the longest context window
MAX_NAME = 256
MAX_TAGS = 16
MAX_DURATION_MS = 366 * 86_400_000
UNIQUE_ID_CHARS = 16  # shorter answer ids are no evidence: Ollama's have three digits
_NS_PER_MS = 1_000_000


class Source(StrEnum):
    """Who told of a call. What a sidecar metered has none of them."""

    OTLP = "otlp"
    LITELLM = "litellm"
    WEBHOOK = "webhook"


class ReportError(ValueError):
    """What is said of a call cannot be true, or cannot be read; the text says why."""


class ReportedCall(Struct, frozen=True):
    """One call as its source tells of it.

    `key` names it at the source, for ever. `agents`: by what names its agent may be known, the
    surest first. `address`: `host:port` that it was sent to. `sidecar_event`: the usage event of
    the sidecar that metered it, where the source knows that.
    """

    source: Source
    key: str
    model: str
    started_at_ms: int
    usage: TokenUsage
    agents: tuple[str, ...] = ()
    provider: str = ""
    endpoint: str = ""
    session: str = ""
    user: str = ""
    node: str = ""
    outcome: Outcome = Outcome.COMPLETED
    stream: bool = False
    duration_ms: int = 0
    ttft_ms: int | None = None
    finish_reason: str = ""
    response_id: str = ""
    address: str = ""
    sidecar_event: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def telling_id(self) -> str:
        """The answer's id where it can only be this call's; empty otherwise."""
        return self.response_id if len(self.response_id) >= UNIQUE_ID_CHARS else ""


def event_id(organization: UUID, source: Source, key: str) -> UUID:
    """The id of a reported call's usage event: a UUIDv5 (RFC 9562 §5.5) below its organization."""
    return uuid5(organization, f"{source}:{key}")


def usage_event(
    call: ReportedCall,
    *,
    organization: UUID,
    agent: UUID,
    charge_nanos: int,
    price_version: str,
) -> UsageEvent:
    """The event that is booked for a call, attributed and priced."""
    usage = call.usage
    return UsageEvent(
        id=str(event_id(organization, call.source, call.key)),
        agent=str(agent),
        model=call.model,
        started_at_ms=call.started_at_ms,
        outcome=call.outcome,
        session=call.session,
        user=call.user,
        provider=call.provider,
        node=call.node,
        endpoint=call.endpoint,
        stream=call.stream,
        tags=call.tags,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        charge_nanos=charge_nanos,
        price_version=price_version,
        duration_ms=call.duration_ms,
        ttft_ms=call.ttft_ms,
        finish_reason=call.finish_reason,
        upstream_id=call.response_id,
        service_tier=usage.tier,
    )


# ------------------------------------------------------------------------------ what is said


def count_of(value: Any, name: str) -> int:
    """A count of tokens; a whole number that came as a float or as digits is taken as such.

    Raises:
        ReportError: no whole number, negative, or more than any call can have.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, float) and isfinite(value) and value.is_integer():
        value, whole = int(value), True
    if not whole:
        raise ReportError(f"{name} is no whole number")
    if not 0 <= value <= MAX_TOKENS:
        raise ReportError(f"{name} is negative or more than {MAX_TOKENS:,}")
    return int(value)


def token_usage(
    *,
    input_tokens: int,
    output_tokens: int,
    cached: int = 0,
    written: int = 0,
    reasoning: int = 0,
    tier: str = "",
) -> TokenUsage:
    """Counts as prices read them: parts are within their wholes, or added to them."""
    if cached + written > input_tokens:
        input_tokens += cached + written
    if reasoning > output_tokens:
        output_tokens += reasoning
    return TokenUsage(
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
        tier=tier[:32],
    )


def text_of(value: Any) -> str:
    """A name as it was said, if it is one; else nothing."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    if isinstance(value, int) and abs(value) >= 2**63:
        return ""
    return str(value).replace("\x00", "").strip()[:MAX_NAME]


def milliseconds_of(value: Any) -> int:
    """Milliseconds of a number of seconds; 0 for what is none, or from another age."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return 0
    return int(value * 1000) if 0 <= value < 2**40 else 0


def duration_ms(started_ns: int, ended_ns: int) -> int:
    """How long a call took; 0 where its clock went back, or stood for a year."""
    spent = (ended_ns - started_ns) // _NS_PER_MS
    return spent if 0 <= spent <= MAX_DURATION_MS else 0


def address_of(url: str) -> str:
    """`host:port` of an address, with the port that its scheme has; empty if it is none."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname and port else ""


_PROVIDERS = {
    "anthropic": "anthropic",
    "aws.bedrock": "aws",
    "aws_bedrock": "aws",
    "bedrock": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_ai": "azure",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "together_ai": "together",
    "vertex_ai": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
}


def provider_of(name: str) -> str:
    """A provider as the price catalogue calls it; its own name where that is none of ours.

    Sources: `gen_ai.provider.name` and `gen_ai.system` of the OpenTelemetry registry,
    `custom_llm_provider` of LiteLLM, ids of genai-prices.
    """
    lowered = name.lower()
    return _PROVIDERS.get(lowered, lowered)[:64]
