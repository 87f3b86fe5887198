"""Messages between sidecar and control plane: the one definition of the wire.

Rules of this file:

1. JSON objects, one `msgspec.Struct` each. A reader skips fields that it does not know, so
   that either side may be newer; a missing optional field has its default.
2. Ids are strings (UUIDs in their usual form). Amounts are integers in the unit of their
   budget: nano-dollars, tokens, requests.
3. Durations are `_ms` and count from the receiver's own clock, as each field says. No message
   asks anybody to compare two wall clocks; `_at_ms` fields are for records only.
4. Watermarks (`used`, `returned`, `overrun`) are totals that never fall, `open` is a gauge.
   Nothing on this wire is a delta: loss, duplicates and reordering are harmless.

Endpoints, all below `/sidecar/v1/`, authenticated by the sidecar's bearer token:
`POST hello` Hello → Welcome · `POST sync` Sync → SyncAnswer · `POST usage` Usage → UsageAnswer ·
`GET watch?spool=…` server-sent events: `event: hint` means "there is something to Sync".
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from msgspec import Raw, Struct, field
from msgspec.json import encode

from enforcement.rules.policy import OrderKind, PolicySnapshot, ScopeKind

PROTOCOL = 1


class Outcome(StrEnum):
    """How a model call ended."""

    COMPLETED = "completed"
    CLAMPED = "clamped"  # ended by the output limit that we lowered to what was granted
    CUT = "cut"  # a metered hold could not be extended
    KILLED = "killed"
    CLIENT_GONE = "client_gone"
    UPSTREAM_FAILED = "upstream_failed"

    __hash__ = str.__hash__  # counted by it for every call, and the enum's own is Python


class DenialCause(StrEnum):
    LIMIT = "limit"  # spent: waiting does not help
    HELD = "held"  # only other requests' holds stand in the way
    SUSPENSE = "suspense"
    ARMING = "arming"
    LEARNING = "learning"
    STALE_POLICY = "stale_policy"
    MISMATCH = "mismatch"  # the budget does not match the attribution
    MAX_VALUES = "max_values"
    ENDED = "ended"  # the budget was until a date, and that has passed
    EARLY = "early"  # asked ahead of a window that is not near enough (L16)


# ---------------------------------------------------------------------------- header


class Header(Struct, frozen=True):
    """Said in every message from a book."""

    organization: str
    spool: str
    epoch: int = 0
    incarnation: str = ""
    protocol: int = PROTOCOL
    book: str = ""  # a name for people: host/worker
    policy_revision: int = 0
    order_cursor: int = 0
    sequence: int = 0  # rises with every message sent; an older `open` gauge is discarded


# ---------------------------------------------------------------------------- hello


class InventoryItem(Struct, frozen=True):
    """One lease that this spool knows, finals of the last 24 h included."""

    lease: str
    budget: str
    value: str
    window_start_s: int
    amount: int
    used: int
    returned: int
    overrun: int = 0
    open: int = 0
    final: bool = False
    incarnation: str = ""
    mac: str = ""


class UpstreamInfo(Struct, frozen=True):
    """A serving node behind this sidecar, as the sidecar found it."""

    name: str
    base_url: str
    engine: str = "unknown"
    engine_version: str = ""
    provider: str = ""
    models: list[str] = field(default_factory=list)
    context_window: int | None = None
    metrics_path: str = ""


class Hello(Struct, frozen=True):
    """A book introduces itself. `boot` is random for each life of the book: the ledger raises
    the spool's epoch when it is another one than before, and keeps it when it is the same.
    """

    header: Header
    boot: str
    kernel_boot_id: str
    clean_shutdown: bool
    inventory: list[InventoryItem] = field(default_factory=list)
    upstreams: list[UpstreamInfo] = field(default_factory=list)
    version: str = ""
    answers: str = ""  # the incarnation that asked for this inventory (L11)


class Welcome(Struct, frozen=True):
    """`unknown` lists leases that the ledger holds for this spool and the inventory lacks.

    `again`: the inventory was made for another incarnation and was not looked at. Nothing else in
    this message counts: say Hello once more.
    """

    organization: str
    incarnation: str
    epoch: int
    policy: PolicySnapshot
    policy_ttl_ms: int
    lease_ttl_ms: int
    order_cursor: int
    unknown: list[InventoryItem] = field(default_factory=list)
    again: bool = False


# ---------------------------------------------------------------------------- sync


class LeaseReport(Struct, frozen=True):
    lease: str
    used: int
    returned: int
    open: int = 0
    overrun: int = 0
    final: bool = False
    renew: bool = False
    final_events: int | None = None  # with `final`: how many usage events paid from this lease


class Attribution(Struct, frozen=True):
    """The facts that a request is charged to. Team and project follow from the agent."""

    agent: str
    session: str = ""
    user: str = ""
    model: str = ""
    provider: str = ""
    node: str = ""
    skill: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    delegation: str = ""  # the token of a child session (L14)


class GroupItem(Struct, frozen=True):
    """One balance that a request is short of: the least it can use, what it needs, what suits."""

    budget: str
    value: str
    floor: int
    need: int
    want: int


class Group(Struct, frozen=True):
    """The lease requests of one blocked request: granted whole or not at all (L8, L10)."""

    key: str
    attribution: Attribution
    items: list[GroupItem]
    wait_ms: int = 150
    ahead: bool = False  # of the coming window (L16)
    spare: bool = False  # nobody waits for it: granted only where there is plenty (L8)


class OrderAck(Struct, frozen=True):
    order: str
    streams_cut: int = 0
    tokens_after: int = 0
    last_byte_ms: int = 0  # from receipt of the order to the last byte forwarded


class Health(Struct, frozen=True):
    open_streams: int = 0
    live_sessions: int = 0
    requests: int = 0
    spool_bytes: int = 0
    resident_bytes: int = 0


class SessionInfo(Struct, frozen=True):
    """A session with a request running now, for the live pages."""

    agent: str
    session: str
    model: str
    node: str
    running: int
    output_tokens: int
    charge_nanos: int
    age_ms: int


class Sync(Struct, frozen=True):
    """Reports, asks and acknowledgements of a book. Idle, it is the heartbeat."""

    header: Header
    reports: list[LeaseReport] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    acknowledgements: list[OrderAck] = field(default_factory=list)
    health: Health = field(default_factory=Health)
    sessions: list[SessionInfo] = field(default_factory=list)


class LeaseAck(Struct, frozen=True):
    """What the ledger has booked. `ttl_ms` > 0: renewed, counted from the sending of the Sync."""

    lease: str
    used: int
    returned: int
    overrun: int = 0
    final: bool = False
    ttl_ms: int = 0


class Grant(Struct, frozen=True):
    """A lease. Its life is `ttl_ms` from the moment the group was first asked (L3)."""

    lease: str
    group: str
    budget: str
    value: str
    window_start_s: int
    amount: int
    ttl_ms: int
    mac: str
    window_ends_at_ms: int | None = None  # for refusal bodies only
    limit: int = 0
    spent: int = 0
    held: int = 0
    tight: bool = False
    opens_in_ms: int = 0  # counted from receipt (L16)
    window_ends_in_ms: int | None = None  # counted from receipt: when to think of the next one


class Denial(Struct, frozen=True):
    """A group that got nothing, and the first balance that stood in the way."""

    group: str
    budget: str
    value: str
    cause: DenialCause
    free: int = 0
    limit: int = 0
    spent: int = 0
    held: int = 0
    suspense: int = 0
    overrun: int = 0
    window_ends_at_ms: int | None = None
    retry_after_ms: int = 0


class Recall(Struct, frozen=True):
    """Send home what is idle of this balance, at once and for 1 s (L8)."""

    budget: str
    value: str


class Order(Struct, frozen=True):
    id: str
    cursor: int
    kind: OrderKind
    scope_kind: ScopeKind
    scope_id: str  # of a session: its agent's
    reason: str = ""
    scope_session: str = ""
    drain: bool = False  # what runs may end within its hold; only new calls are stopped


class SyncAnswer(Struct):
    """`status`: ok; rehello: say Hello for this incarnation; fenced: another boot has the spool."""

    status: Literal["ok", "rehello", "fenced"] = "ok"
    incarnation: str = ""
    acks: list[LeaseAck] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    denials: list[Denial] = field(default_factory=list)
    recalls: list[Recall] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    order_cursor: int = 0
    policy_revision: int = 0
    policy_ttl_ms: int = 0  # the policy lease, counted from the sending of the Sync (L12)
    policy: PolicySnapshot | None = None  # only when the book's revision is older
    unsettled: list[InventoryItem] = field(default_factory=list)  # say (again) how these ended


# ---------------------------------------------------------------------------- usage


class Part(Struct, frozen=True, gc=False):
    """What a request used of one lease (`lease` empty: overrun outside any lease)."""

    budget: str
    value: str
    lease: str
    amount: int


class UsageEvent(Struct, frozen=True, gc=False, omit_defaults=True):
    """One finished or cut model call. `input_tokens` includes cached and cache-written ones."""

    id: str
    agent: str
    model: str
    started_at_ms: int
    outcome: Outcome
    session: str = ""
    user: str = ""
    provider: str = ""
    node: str = ""
    skill: str = ""
    endpoint: str = ""
    stream: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    gpu_ms: int = 0  # engine time × accelerators
    tool_calls: int = 0  # that reached the agent
    charge_nanos: int = 0
    price_version: str = ""
    parts: list[Part] = field(default_factory=list)
    attempt: int = 1
    duration_ms: int = 0
    ttft_ms: int | None = None
    finish_reason: str = ""
    stopped_by: str = ""  # budget or order that cut, clamped or killed it
    upstream_id: str = ""
    presumed: bool = False  # usage never arrived: the whole hold is charged
    estimated: bool = False  # counted by us, not by the engine
    cache_write_long_tokens: int = 0  # a part of cache_write_tokens
    input_audio_tokens: int = 0  # parts of input_tokens
    input_image_tokens: int = 0
    output_audio_tokens: int = 0  # a part of output_tokens
    service_tier: str = ""  # as the provider said


class RefusalCount(Struct, frozen=True):
    """Refusals of one kind since the last flush; `id` makes the booking idempotent."""

    id: str
    agent: str
    code: str
    count: int
    last_at_ms: int
    model: str = ""
    budget: str = ""
    message: str = ""


class Delegate(Struct, frozen=True):
    """A session gives part of its balances to a child session (L14).

    `amounts`: by budget, id or name, in its unit; dollars as decimal text. Without amounts
    `percent` of what is free is given on every budget for each session.
    """

    header: Header
    attribution: Attribution
    child_session: str
    child_agent: str = ""  # id or slug; empty: the same agent
    amounts: dict[str, str | int] = field(default_factory=dict)
    percent: int = 0
    expires_in_s: int = 3_600


class Delegated(Struct, frozen=True):
    """`token`: what the child's calls bring. `amounts`: what was given, by budget name."""

    delegation: str
    token: str
    session: str
    expires_at_ms: int
    amounts: dict[str, str | int] = field(default_factory=dict)


class EndDelegation(Struct, frozen=True):
    """What a child session has left goes home. Its parent says so, or the child itself."""

    header: Header
    attribution: Attribution
    delegation: str


class Usage(Struct, frozen=True):
    header: Header
    events: list[UsageEvent] = field(default_factory=list)
    refusals: list[RefusalCount] = field(default_factory=list)
    position: int = 0  # spool position behind the last event


class EncodedUsage(Struct, frozen=True):
    """A `Usage` whose events are JSON still: one that cannot be read does not spoil the others."""

    header: Header
    events: list[Raw] = field(default_factory=list)
    refusals: list[RefusalCount] = field(default_factory=list)
    position: int = 0


def usage_message(
    header: Header, *, events: Iterable[bytes], refusals: list[RefusalCount], position: int
) -> bytes:
    """A `Usage` of events that are JSON already."""
    return encode(EncodedUsage(header, [Raw(event) for event in events], refusals, position))


class UsageAnswer(Struct, frozen=True):
    accepted: int
    duplicates: int
    position: int  # everything before it may be cut from the spool
    rejected: int = 0  # events that cannot be true, kept aside by the ledger
