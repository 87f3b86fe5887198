"""The policy snapshot, compiled for decisions: everything a request asks for is one look-up.

A view is built when a snapshot arrives and never changes, except for its caches and the rate
states, which the next view inherits. Orders that are newer than the snapshot overlay it.
"""

from collections.abc import Callable, Iterable

from enforcement.rules.estimate import price_for
from enforcement.rules.gcra import Limit, refund
from enforcement.rules.keys import key_hash
from enforcement.rules.lots import BalanceKey
from enforcement.rules.matching import Matcher, Plan, Subject
from enforcement.rules.policy import (
    AgentPolicy,
    AgentState,
    KeyPolicy,
    Mode,
    OrderKind,
    PolicySnapshot,
    PricePolicy,
    ScopeKind,
    SessionPolicy,
)
from enforcement.rules.sessiontree import Lineage, LineageError, at_level, key_of, pairs_of, unseal
from enforcement.rules.skillgate import CardGate
from enforcement.rules.splits import Overflows
from enforcement.rules.wire import Denial, Order
from enforcement.sidecar.measures import Measures, share_of
from enforcement.sidecar.terms import Terms

MAX_RECENT_SESSIONS = 32  # of an agent, that may hand back when it is paused
MAX_CACHED_KEYS = 10_000
MAX_TERMS = 1_024
THROTTLED_REQUESTS_PER_MINUTE = 6
THROTTLED_SHARE = 10  # a throttled agent keeps a tenth of its rates
LARGE_REST = 200  # so an agent's refused large bodies take half a percent of the loop
LONGEST_REST_NS = 10_000_000_000  # also after many calls at once that no budget paid

TermsKey = tuple[object, ...]

_ORDERED = {
    OrderKind.KILL: AgentState.KILLED,
    OrderKind.PAUSE: AgentState.PAUSED,
    OrderKind.THROTTLE: AgentState.THROTTLED,
}
_STOPPED = (AgentState.PAUSED, AgentState.KILLED)
_SEVERITY = (AgentState.ACTIVE, AgentState.THROTTLED, AgentState.PAUSED, AgentState.KILLED)


class RateState:
    """The GCRA states of one agent; they outlive policy revisions."""

    __slots__ = ("handed_back", "large_after_ns", "requests_tat_ns", "sessions", "tokens_tat_ns")

    def __init__(self) -> None:
        self.sessions: dict[str, None] = {}  # the last ones that called, where that matters
        self.handed_back: set[str] = set()  # those of them that have made their last call
        self.requests_tat_ns = 0
        self.tokens_tat_ns = 0
        self.large_after_ns = 0  # no large body is read before

    def refused_large(self, took_ns: int, *, now_ns: int) -> None:
        """A large body was judged for so long and leads to nothing.

        That took the loop which all callers share, and cost its sender nothing. So the next one
        waits for many times as long, whatever connection it comes by.
        """
        after_ns = max(self.large_after_ns, now_ns) + LARGE_REST * took_ns
        self.large_after_ns = min(after_ns, now_ns + LONGEST_REST_NS)


class Agent:
    """An agent as decisions see it. Its rates are shared evenly by so many `books`."""

    __slots__ = ("_books", "policy", "rates", "requests", "state", "tokens")

    def __init__(self, policy: AgentPolicy, rates: RateState, *, books: int = 1) -> None:
        self.policy = policy
        self.rates = rates
        self._books = books
        self.state = AgentState.ACTIVE
        self.requests: Limit | None = None
        self.tokens: Limit | None = None

    def hand_back_left(self, session: str) -> int | None:
        """Output tokens of the one call that a paused session may still make; None: no such.

        Only sessions that called before the pause have work to save: who is paused cannot name
        new ones to go on.
        """
        rates = self.rates
        if session not in rates.sessions or session in rates.handed_back:
            return None
        return self.policy.hand_back_tokens

    def note_session(self, session: str) -> None:
        """A session calls that is not paused."""
        rates = self.rates
        rates.sessions.pop(session, None)
        rates.sessions[session] = None
        rates.handed_back.discard(session)
        if len(rates.sessions) > MAX_RECENT_SESSIONS:
            oldest = next(iter(rates.sessions))
            del rates.sessions[oldest]
            rates.handed_back.discard(oldest)

    def refund_tokens(self, amount: int) -> None:
        """Give back what the token rate was charged and nobody used."""
        if self.tokens is not None and amount > 0:
            tat_ns = self.rates.tokens_tat_ns
            self.rates.tokens_tat_ns = refund(self.tokens, tat_ns=tat_ns, amount=amount)

    def become(self, state: AgentState) -> None:
        """Take a state, and the rates that follow from it."""
        self.state = state
        requests, tokens = self.policy.requests_per_minute, self.policy.tokens_per_minute
        if state is AgentState.THROTTLED:
            requests = max((requests or 0) // THROTTLED_SHARE, 1) if requests else None
            requests = requests or THROTTLED_REQUESTS_PER_MINUTE
            tokens = max(tokens // THROTTLED_SHARE, 1) if tokens else None
        self.requests = Limit(share_of(requests, self._books)) if requests else None
        self.tokens = Limit(share_of(tokens, self._books)) if tokens else None


class PolicyView:
    """One snapshot, compiled for one of so many `books` that share this sidecar's rates."""

    def __init__(
        self,
        snapshot: PolicySnapshot,
        *,
        previous: "PolicyView | None" = None,
        books: int = 1,
    ) -> None:
        self.snapshot = snapshot
        self.gate: CardGate = CardGate(snapshot, previous=previous.gate if previous else None)
        self.budgets = {budget.id: budget for budget in snapshot.budgets}
        self.measures: Measures = Measures(
            snapshot, previous=previous.measures if previous else None, books=books
        )
        self._overlay: dict[tuple[ScopeKind, str], AgentState] = {}
        self._pepper = bytes.fromhex(snapshot.pepper)
        self._matcher = Matcher([b for b in snapshot.budgets if b.mode is Mode.HARD])
        self._overflows = Overflows()
        self._terms: dict[TermsKey, Terms] = {}
        self._keys: dict[str, tuple[str, KeyPolicy]] = {
            key.hash: (agent.id, key) for agent in snapshot.agents for key in agent.keys
        }
        self._tree_key = key_of(self._pepper)
        # Sessions that are stopped though their agents may call: by agent and name.
        self.sessions: dict[tuple[str, str], SessionPolicy] = {
            (stopped.agent, stopped.session): stopped for stopped in snapshot.sessions
        }
        self._lineages: dict[str, Lineage] = {}
        self._known_keys: dict[bytes, tuple[Agent, int | None]] = {}
        self._prices: dict[tuple[str, str], PricePolicy | None] = {}
        known = previous.agents if previous else {}
        self.agents: dict[str, Agent] = {}
        for policy in snapshot.agents:
            before = known.get(policy.id)
            rates = before.rates if before else RateState()
            agent = Agent(policy, rates, books=books)
            agent.become(policy.state)
            self.agents[policy.id] = agent
        if previous is not None:
            self._inherit(previous)

    def agent_of(self, key: bytes, *, now_ms: int) -> Agent | None:
        """The agent that owns a key, if the key is known and has not expired."""
        known = self._known_keys.get(key)
        if known is None:
            known = self._look_up(key)
            if known is None:
                return None
        agent, expires_at_ms = known
        if expires_at_ms is not None and expires_at_ms <= now_ms:
            return None
        return agent

    def _look_up(self, key: bytes) -> tuple[Agent, int | None] | None:
        if not key.isascii():
            return None
        owner = self._keys.get(key_hash(key.decode("ascii"), pepper=self._pepper))
        agent = self.agents.get(owner[0]) if owner else None
        if owner is None or agent is None:
            return None
        if len(self._known_keys) >= MAX_CACHED_KEYS:
            self._known_keys.clear()
        known = (agent, owner[1].expires_at_ms)
        self._known_keys[key] = known
        return known

    def plan(self, subject: Subject) -> Plan:
        """The hard budgets of a request: those that are leased."""
        return self._matcher.plan(subject)

    def lineage(self, token: str) -> Lineage:
        """What a delegation token says.

        Raises:
            LineageError: nobody of this organization sealed it, or an agent of it is gone.
        """
        known = self._lineages.get(token)
        if known is None:
            known = unseal(token, key=self._tree_key)
            if any(level.agent not in self.agents for level in known.levels):
                raise LineageError("an agent of the delegation is gone")
            if len(self._lineages) >= MAX_CACHED_KEYS:
                self._lineages.clear()
            self._lineages[token] = known
        return known

    def plan_of_tree(self, lineage: Lineage, subject: Subject) -> Plan:
        """The hard balances of a child session's call, and of its ancestors (L14)."""
        pairs = pairs_of(
            lineage,
            subject_at=lambda level: at_level(subject, self.agents[level.agent].policy, level),
            plan=self._matcher.plan,
        )
        return Plan.of_pairs(pairs)

    def terms(self, key: TermsKey, compiled: Callable[[], Terms]) -> Terms:
        """The terms of calls that share a key: compiled the first time."""
        known = self._terms.get(key)
        if known is None:
            if len(self._terms) >= MAX_TERMS:
                self._terms.clear()
            known = self._terms[key] = compiled()
        return known

    def forget_terms(self) -> None:
        """Compile them anew: what they rest on beside the policy has changed."""
        self._terms.clear()

    def shared(self, balances: tuple[BalanceKey, ...], *, now_ns: int) -> tuple[BalanceKey, ...]:
        """These balances, those of full splits replaced by the one that the rest shares."""
        return self._overflows.apply(balances, now_ns=now_ns)

    def overflows(self, denial: Denial, *, now_ns: int) -> bool:
        """Whether a denial means that its value shares the balance of others. It is remembered."""
        return self._overflows.note(denial, self.budgets.get(denial.budget), now_ns=now_ns)

    def price(self, *, model: str, provider: str) -> PricePolicy | None:
        """The price version that holds for a model of a provider."""
        key = (model, provider)
        if key not in self._prices:
            if len(self._prices) >= MAX_CACHED_KEYS:
                self._prices.clear()
            self._prices[key] = price_for(self.snapshot.prices, model=model, provider=provider)
        return self._prices[key]

    # ------------------------------------------------------------------ orders

    def apply(self, order: Order) -> frozenset[str]:
        """Overlay an order; the ids of the agents that it concerns."""
        if order.scope_kind is ScopeKind.SESSION:
            return self._apply_to_session(order)
        concerned = frozenset(
            agent.policy.id for agent in self.agents.values() if self._covers(order, agent)
        )
        state = _ORDERED.get(order.kind)
        if state is None:
            self._resume(order, concerned)
        else:
            self._overlay[order.scope_kind, order.scope_id] = state
        for agent_id in concerned:
            self._refresh(self.agents[agent_id], resumed=state is None)
        return concerned

    def _apply_to_session(self, order: Order) -> frozenset[str]:
        key = (order.scope_id, order.scope_session)
        state = _ORDERED.get(order.kind)
        if state in _STOPPED:
            self.sessions[key] = SessionPolicy(*key, state, order.drain)
        else:
            self.sessions.pop(key, None)
        return frozenset({order.scope_id} & self.agents.keys())

    def _resume(self, order: Order, concerned: Iterable[str]) -> None:
        self._overlay.pop((order.scope_kind, order.scope_id), None)
        if order.scope_kind is not ScopeKind.AGENT:
            for agent_id in concerned:
                self._overlay.pop((ScopeKind.AGENT, agent_id), None)

    def _refresh(self, agent: Agent, *, resumed: bool) -> None:
        own = AgentState.ACTIVE if resumed else agent.policy.state
        states = [own, *(self._overlay[key] for key in self._scopes(agent) if key in self._overlay)]
        agent.become(max(states, key=_SEVERITY.index))

    def _scopes(self, agent: Agent) -> list[tuple[ScopeKind, str]]:
        policy = agent.policy
        scopes = [
            (ScopeKind.ORGANIZATION, self.snapshot.organization),
            (ScopeKind.AGENT, policy.id),
        ]
        if policy.team:
            scopes.append((ScopeKind.TEAM, policy.team))
        if policy.project:
            scopes.append((ScopeKind.PROJECT, policy.project))
        return scopes

    def _covers(self, order: Order, agent: Agent) -> bool:
        return (order.scope_kind, order.scope_id) in self._scopes(agent)

    def _inherit(self, previous: "PolicyView") -> None:
        """Orders on wider scopes outlive a snapshot; an agent's own state is in the snapshot."""
        self._overlay = {
            key: state
            for key, state in previous._overlay.items()  # noqa: SLF001 -- same class
            if key[0] is not ScopeKind.AGENT
        }
        for agent in self.agents.values() if self._overlay else ():
            self._refresh(agent, resumed=False)
