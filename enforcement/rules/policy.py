"""The policy snapshot: what sidecars are told of agents, budgets, prices and skill cards.

Part of the wire and under the rules of `enforcement.rules.wire`, which carries it.
"""

from enum import StrEnum
from typing import Literal

from msgspec import Struct, field


class Unit(StrEnum):
    """What a budget counts. Amounts are nano-dollars, tokens, requests."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"


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


class Per(StrEnum):
    """The split of a budget: one balance in all, or one for each agent or session."""

    NONE = ""
    AGENT = "agent"
    SESSION = "session"


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


class WindowSpec(Struct, frozen=True):
    """`lifetime`, or a calendar `period` in a time zone. `anchor_day` shifts months (1-28)."""

    kind: Literal["lifetime", "calendar"] = "lifetime"
    period: Literal["minute", "hour", "day", "week", "month", "quarter", "year"] | None = None
    time_zone: str = "UTC"
    anchor_day: int = 1


class BudgetPolicy(Struct, frozen=True):
    id: str
    name: str
    scope_kind: ScopeKind
    scope_id: str
    unit: Unit
    limit: int
    mode: Mode = Mode.HARD
    hold_mode: HoldMode = HoldMode.STRICT
    per: Per = Per.NONE
    window: WindowSpec = field(default_factory=WindowSpec)
    max_values: int = 10_000


class Rates(Struct, frozen=True):
    """Nano-dollars per million tokens of each kind, and nano-dollars per request."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    request: int = 0


class PriceTier(Struct, frozen=True):
    """Rates that replace the base rates when a request's input exceeds a number of tokens."""

    above_input_tokens: int
    rates: Rates


class PricePolicy(Struct, frozen=True):
    """One price version. `match` tells how `model` is compared with the request's model."""

    id: str
    model: str
    rates: Rates
    provider: str = ""
    match: Literal["exact", "prefix"] = "exact"
    tiers: list[PriceTier] = field(default_factory=list)
    own: bool = False  # the organization's own rate: wins over the catalogue


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
