"""The policy snapshot: what sidecars are told of agents, budgets, prices and skill cards.

Part of the wire and under the rules of `enforcement.rules.wire`, which carries it.
"""

from enum import StrEnum
from typing import Literal

from msgspec import Struct, field


class Unit(StrEnum):
    """What a budget counts; amounts are integers of it.

    `tokens` are prompt and completion together; `input_tokens` are all of the prompt, cached ones
    included; `reasoning_tokens` are a part of the output. `gpu_ms` is engine time × accelerators.
    `concurrency` lends permits: nothing is ever spent, what runs is held.
    """

    USD = "usd"  # nano-dollars
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CACHED_TOKENS = "cached_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    REQUESTS = "requests"
    GPU_MS = "gpu_ms"
    TOOL_CALLS = "tool_calls"
    CONCURRENCY = "concurrency"

    __hash__ = str.__hash__  # the enum's own is Python, and every call looks units up


# What depends on how long the prompt is.
PROMPT_UNITS = frozenset({Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.CACHED_TOKENS})
# What depends on how long the answer may be: clamped, and metered slice by slice.
OUTPUT_UNITS = frozenset({Unit.USD, Unit.TOKENS, Unit.OUTPUT_TOKENS, Unit.REASONING_TOKENS})


class Mode(StrEnum):
    """What happens at the limit: refuse (hard), tell (soft), watch only (observe)."""

    HARD = "hard"
    SOFT = "soft"
    OBSERVE = "observe"


class HoldMode(StrEnum):
    """How a hard budget holds: the whole worst case, or slice by slice (design L2)."""

    STRICT = "strict"
    METERED = "metered"


class ScopeKind(StrEnum):
    ORGANIZATION = "organization"
    TEAM = "team"
    PROJECT = "project"
    AGENT = "agent"
    SESSION = "session"


class Per(StrEnum):
    """The split of a budget: one balance in all, or one for each value of a fact.

    Beside these a budget may be split by a tag: `tag:NAME`.
    """

    NONE = ""
    TEAM = "team"
    PROJECT = "project"
    AGENT = "agent"
    SESSION = "session"
    USER = "user"
    MODEL = "model"
    PROVIDER = "provider"
    NODE = "node"
    SKILL = "skill"


class Overflow(StrEnum):
    """What a split does with values beyond its `max_values`."""

    REFUSE = "refuse"
    SHARE = "share"  # one balance for all of them


class AgentState(StrEnum):
    ACTIVE = "active"
    THROTTLED = "throttled"
    PAUSED = "paused"
    KILLED = "killed"


class OrderKind(StrEnum):
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    THROTTLE = "throttle"


class KeyPolicy(Struct, frozen=True):
    """One agent key. `hash` is hex HMAC-SHA-256 of the key under the organization's pepper."""

    id: str
    hash: str
    expires_at_ms: int | None = None


class CardGrant(Struct, frozen=True):
    """An agent may use this card. `tools` narrows the card's tools; None takes them all."""

    card: str  # sha256 of the card's envelope payload, hex
    tools: list[str] | None = None


class AgentPolicy(Struct, frozen=True):
    id: str
    slug: str
    state: AgentState = AgentState.ACTIVE
    team: str | None = None
    project: str | None = None
    keys: list[KeyPolicy] = field(default_factory=list)
    requires_card: bool = False
    grants: list[CardGrant] = field(default_factory=list)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    priority: int = 0  # 0 to 9: higher ones get more of a busy node, and engines are told
    draining: bool = False  # paused or killed, and what ran then may end within its hold
    hand_back_tokens: int | None = None  # output of the one call that a paused session may make


class SessionPolicy(Struct, frozen=True):
    """A session of an agent that people have stopped."""

    agent: str
    session: str
    state: AgentState
    draining: bool = False


class WindowSpec(Struct, frozen=True):
    """When a budget begins anew.

    `lifetime` never, `until` never either but ends at `ends_at_s`; `calendar` at each `period` of
    a time zone, months, quarters and years shifted by `anchor_day` (1-28), quarters and years by
    `anchor_month` too; `rolling` counts the last `length_s` seconds, in `parts` sub-buckets.
    """

    kind: Literal["lifetime", "calendar", "until", "rolling"] = "lifetime"
    period: Literal["minute", "hour", "day", "week", "month", "quarter", "year"] | None = None
    time_zone: str = "UTC"
    anchor_day: int = 1
    anchor_month: int = 1
    ends_at_s: int | None = None
    length_s: int | None = None
    parts: int = 0


class BudgetPolicy(Struct, frozen=True):
    """A budget as rules see it.

    `filters` narrow it: a fact (`user`, `model`, `provider`, `node`, `skill`, `tag:NAME`) must fit
    one of its patterns, exact or with a `*` at the end; every fact named must fit. A session's
    scope is its agent's id, and `scope_session` its name.
    """

    id: str
    name: str
    scope_kind: ScopeKind
    scope_id: str
    unit: Unit
    limit: int
    mode: Mode = Mode.HARD
    hold_mode: HoldMode = HoldMode.STRICT
    per: str = Per.NONE.value  # one of Per, or `tag:NAME`
    window: WindowSpec = field(default_factory=WindowSpec)
    max_values: int = 10_000
    overflow: Overflow = Overflow.REFUSE
    filters: dict[str, list[str]] = field(default_factory=dict)
    scope_session: str = ""
    increase_url: str = ""  # where a person can give it more


class Measure(Struct, frozen=True):
    """What a threshold that was reached does to the calls of one balance, until it is lifted."""

    budget: str
    value: str
    kind: str  # one of `enforcement.rules.thresholds.MEASURES`
    percent: int
    requests_per_minute: int = 0
    model: str = ""


# Kinds of tokens that have a rate of their own only where it differs from their whole's.
OPTIONAL_KINDS = {  # kind: its whole
    "cache_write_long": "cache_write",
    "input_audio": "input",
    "input_image": "input",
    "output_audio": "output",
    "reasoning": "output",
}


class Rates(Struct, frozen=True):
    """Nano-dollars per million tokens of each kind, and nano-dollars per request.

    A kind without a rate of its own (None) pays what the kind pays that it is a part of: audio and
    images of the prompt `input`, a cache write that lasts longer `cache_write`, audio and reasoning
    of the answer `output`.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    request: int = 0
    cache_write_long: int | None = None
    input_audio: int | None = None
    input_image: int | None = None
    output_audio: int | None = None
    reasoning: int | None = None

    @property
    def own_kinds(self) -> dict[str, int]:
        """The rates of the optional kinds that have one."""
        found = {kind: getattr(self, kind) for kind in OPTIONAL_KINDS}
        return {kind: rate for kind, rate in found.items() if rate is not None}

    @property
    def special(self) -> bool:
        """Whether an optional kind costs anything of its own."""
        return bool(
            self.cache_write_long
            or self.input_audio
            or self.input_image
            or self.output_audio
            or self.reasoning
        )

    def of(self, kind: str) -> int:
        """The rate that an optional kind pays."""
        own: int | None = getattr(self, kind)
        whole: int = getattr(self, OPTIONAL_KINDS[kind])
        return whole if own is None else own

    @property
    def dearest_input(self) -> int:
        """The most that a token of a prompt can cost, whatever it turns out to be."""
        return max(
            self.input,
            self.cached_input,
            self.cache_write,
            self.cache_write_long or 0,
            self.input_audio or 0,
            self.input_image or 0,
        )

    @property
    def dearest_output(self) -> int:
        """The most that a token of an answer can cost."""
        return max(self.output, self.output_audio or 0, self.reasoning or 0)


class PriceTier(Struct, frozen=True):
    """Rates that replace the base rates when a request's input exceeds a number of tokens.

    `variants`: what service tiers pay there instead; one that is not named pays what it pays at any
    length.
    """

    above_input_tokens: int
    rates: Rates
    variants: dict[str, Rates] = field(default_factory=dict)


class PricePolicy(Struct, frozen=True):
    """One price version. `match` tells how `model` is compared with the request's model.

    `variants`: rates by the service tier that the provider says it served (`priority`, `flex`,
    `batch` …); what is not in them pays `rates` and `tiers`.
    """

    id: str
    model: str
    rates: Rates
    provider: str = ""
    match: Literal["exact", "prefix"] = "exact"
    tiers: list[PriceTier] = field(default_factory=list)
    own: bool = False  # the organization's own rate: wins over the catalogue
    variants: dict[str, Rates] = field(default_factory=dict)


class TrustedKey(Struct, frozen=True):
    """An Ed25519 key that may sign skill cards. `public_key` is the raw key in hex."""

    key_id: str
    public_key: str


class PolicySnapshot(Struct, frozen=True):
    organization: str
    revision: int
    pepper: str = ""  # hex; keys are compared as HMAC-SHA-256 under it
    agents: list[AgentPolicy] = field(default_factory=list)
    budgets: list[BudgetPolicy] = field(default_factory=list)
    prices: list[PricePolicy] = field(default_factory=list)
    cards: dict[str, str] = field(default_factory=dict)  # card digest → DSSE envelope, JSON text
    card_keys: list[TrustedKey] = field(default_factory=list)
    revoked_cards: list[str] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    sessions: list[SessionPolicy] = field(default_factory=list)  # that are not as their agents
    draining: list[str] = field(default_factory=list)  # nodes that take no new calls, by name
