"""From bytes to a call that may be held for: steps 1 to 4 of a request's way, in one go.

Strict parse, identity, agent state, skill cards, route, match, price. Nothing here waits, and
nothing is reserved yet. A refusal is raised as a value.
"""

from msgspec.structs import replace

from enforcement.rules.dialects import Dialect
from enforcement.rules.lots import BalanceKey
from enforcement.rules.matching import Plan, Subject, subject_of
from enforcement.rules.modelroutes import Lane
from enforcement.rules.policy import Measure, Unit
from enforcement.rules.requests import Body, ParsedRequest, RequestError, rerouted
from enforcement.rules.sessiontree import LineageError
from enforcement.rules.verdicts import (
    PERMISSION,
    Refuse,
    state_refusal,
    unpriced,
)
from enforcement.rules.wire import Attribution
from enforcement.sidecar import clock
from enforcement.sidecar.answers import invalid
from enforcement.sidecar.bounds import unbounded
from enforcement.sidecar.config import Config
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.http1 import HttpError, RequestHead
from enforcement.sidecar.identity import Caller, Said, bearer_of, caller_of, said_by, with_body
from enforcement.sidecar.measures import target_of
from enforcement.sidecar.policy import Agent, PolicyView
from enforcement.sidecar.routing import Router, no_route
from enforcement.sidecar.slots import Slots
from enforcement.sidecar.stopping import sessions_of, stopped_session
from enforcement.sidecar.terms import Size, Terms

_NOT_JSON = invalid("Content-Type must be application/json", status=415, code="not_json")

UNMEASURED_MARGIN = 256  # of a call that was held by slices, and then tried on another node


class RefusedError(Exception):
    """The request goes no further."""

    def __init__(self, refusal: Refuse, *, agent: Agent | None = None, model: str = "") -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.agent = agent
        self.model = model


class Call:
    """What is known of a call before anything is held for it."""

    __slots__ = (
        "agent",
        "asked",
        "balances",
        "caller",
        "dialect",
        "hands_back",
        "judging_ns",
        "measures",
        "parsed",
        "passed",
        "plan",
        "price",
        "prompt_tokens",
        "quotes",
        "slot",
        "tried",
        "upstream",
    )

    def __init__(
        self,
        *,
        agent: Agent,
        caller: Caller,
        dialect: Dialect,
        parsed: ParsedRequest,
        upstream: Upstream,
        terms: Terms,
        balances: tuple[BalanceKey, ...],
        passed: bytes = b"",
        tried: tuple[str, ...] = (),
    ) -> None:
        self.agent = agent
        self.caller = caller
        self.dialect = dialect
        self.parsed = parsed
        self.passed = passed  # lines of the client's head that the dialect passes on
        self.upstream = upstream
        self.price = terms.price
        self.plan = terms.plan
        self.measures = terms.measures
        self.balances = balances
        # What is quoted for others holds for this call as long as its balances are theirs.
        self.quotes = terms.quotes if balances is terms.balances else {}
        self.tried = tried  # nodes that failed it
        self.asked = parsed.model  # before a route chose
        self.hands_back = False  # the one call that a paused session may make
        self.judging_ns = 0  # how long a large body took
        self.prompt_tokens: int | None = None  # as counted by its node
        self.slot: Slots | None = None  # of which it has one

    def size(self, prompt_tokens: int | None) -> Size:
        """All that its quote depends on, beside its terms."""
        parsed = self.parsed
        return (
            self.dialect.path,
            parsed.output_limit,
            prompt_tokens,
            parsed.prompts,
            parsed.sequences,
            parsed.stream,
            self.upstream.context_window,
            self.upstream.margin_tokens,
            self.caller.timeout_ms,
            parsed.parallel_tools if parsed.tools else None,
        )

    def give_back_slot(self) -> None:
        """Let another call have this one's slot."""
        slot, self.slot = self.slot, None
        if slot is not None:
            slot.give_back(self.agent.policy.id)

    @property
    def priority(self) -> int:
        """What engines are told: the agent's, or less than any for the batch lane."""
        return -1 if self.caller.lane is Lane.BATCH else self.agent.policy.priority

    @property
    def extensible(self) -> bool:
        """Whether metered budgets can follow the answer while it is made, and end it in time."""
        one_stream = self.parsed.stream and self.parsed.sequences == 1
        return one_stream and self.upstream.margin_tokens is not None

    @property
    def margin_tokens(self) -> int:
        """What metered budgets hold beyond what was produced."""
        known = self.upstream.margin_tokens
        return UNMEASURED_MARGIN if known is None else known

    def timeout_ms(self, config: Config) -> int:
        """How long the call may run: what is configured, or less if its caller says so."""
        most = int(config.request_timeout * 1000)
        return min(self.caller.timeout_ms or most, most)

    def most_tool_calls(self, config: Config) -> int:
        """The most tool calls that its answer may make."""
        parsed = self.parsed
        if not parsed.tools:
            return 0
        return (config.max_tool_calls if parsed.parallel_tools else 1) * parsed.sequences

    def throttled(self, view: PolicyView | None, *, now_ns: int) -> int:
        """Pass the throttles of its measures, once: 0, or how long until it may."""
        if not self.measures or view is None:
            return 0
        wait_ns = view.measures.retry_in_ns(self.measures, now_ns=now_ns)
        if not wait_ns:
            self.measures = ()
        return wait_ns

    def follow(self, view: PolicyView) -> None:
        """Take up what a later policy says of the agent. A price that was known stays."""
        agent = view.agents.get(self.agent.policy.id)
        if agent is None:
            return
        self.agent = agent
        self.match(view)
        if self.price is None and Unit.USD in self.plan.units:
            self.price = view.price(model=self.parsed.model, provider=self.upstream.provider)

    def match(self, view: PolicyView) -> None:
        """Find the budgets and balances anew, by the view's policy and what overflows."""
        terms = _terms(view, self.agent, self.caller, self.parsed, self.upstream)
        self.plan = terms.plan
        self.balances = view.shared(terms.balances, now_ns=clock.now_ns())
        self.measures = terms.measures
        self.quotes = {}  # the price may be one of an earlier policy

    def attribution(self) -> Attribution:
        return Attribution(
            agent=self.agent.policy.id,
            session=self.caller.session,
            user=self.parsed.user,
            model=self.parsed.model,
            provider=self.upstream.provider,
            node=self.upstream.name,
            skill=self.caller.skill,
            tags=self.caller.tags,
            delegation=self.caller.delegation,
        )


def identify(view: PolicyView, headers: dict[bytes, bytes], *, now_ms: int) -> Agent:
    """The agent whose key the request brings.

    Raises:
        RefusedError: 401.
    """
    return _owner_of(view, bearer_of(headers), now_ms=now_ms)


def _owner_of(view: PolicyView, key: bytes, *, now_ms: int) -> Agent:
    agent = view.agent_of(key, now_ms=now_ms) if key else None
    if agent is None:
        what = "Unknown, expired or revoked agent key" if key else "An agent key is needed"
        raise RefusedError(invalid(what, status=401, code="invalid_api_key"))
    return agent


def _said(view: PolicyView, head: RequestHead, *, now_ms: int) -> Said:
    """What a head says. Raises RefusedError: it cannot be read, or is not for JSON."""
    try:
        said = said_by(head)
    except HttpError as error:
        agent = identify(view, head.headers, now_ms=now_ms)
        raise RefusedError(invalid(str(error), status=error.status), agent=agent) from error
    if not said.json:
        raise RefusedError(_NOT_JSON)
    return said


def admit(
    view: PolicyView,
    router: Router,
    *,
    dialect: Dialect,
    head: RequestHead,
    body: Body,
    now_ms: int,
) -> Call:
    """Judge a request as far as that is possible without its size.

    Raises:
        RefusedError: it is refused.
    """
    said = _said(view, head, now_ms=now_ms)
    agent = _owner_of(view, said.key, now_ms=now_ms)
    model = ""
    try:
        caller = _in_tree(view, agent, said.caller) if said.caller.delegation else said.caller
        parsed = dialect.parse(body)
        parsed.model = parsed.model or router.only_model(dialect)
        caller = with_body(caller, parsed)
        model = parsed.model
        paused = _check_state(view, agent, caller)
        _check_cards(view, agent, parsed, skill=caller.skill, now_ms=now_ms)
        now_ns = clock.now_ns()
        asked = model
        upstream, spoken, parsed = router.find(
            parsed, dialect, caller=caller, view=view, now_ns=now_ns
        )
        model = parsed.model
        terms = _terms(view, agent, caller, parsed, upstream)
        if target := target_of(terms.measures, model):
            asked = target
            upstream, spoken, parsed = router.find(
                rerouted(parsed, target), dialect, caller=caller, view=view, now_ns=now_ns
            )
            model = parsed.model
            terms = _terms(view, agent, caller, parsed, upstream)
        paused = _check_measures(view, terms.measures) or paused
        if paused is not None:
            parsed = _last_call(agent, caller, parsed, paused)
        _check_price(terms, model)
        if upstream is None:
            raise RefusedError(no_route(router, model, now_ns=now_ns))
        _check_translatable(spoken, parsed)
        _check_bounded(parsed, terms.plan, upstream)
    except RequestError as error:
        refusal = invalid(str(error), code=error.code, param=error.param)
        raise RefusedError(refusal, agent=agent, model=model) from error
    except RefusedError as error:
        error.agent, error.model = agent, model
        raise
    call = Call(
        agent=agent,
        caller=caller,
        dialect=spoken,
        parsed=parsed,
        upstream=upstream,
        terms=terms,
        balances=view.shared(terms.balances, now_ns=clock.now_ns()),
        passed=spoken.passed_lines(head.headers),
    )
    call.asked = asked
    _note_session(call, is_last=paused is not None)
    return call


def _note_session(call: Call, *, is_last: bool) -> None:
    """Sessions that called may hand back once when they are paused."""
    agent, session = call.agent, call.caller.session
    if is_last:
        call.hands_back = True
        agent.rates.handed_back.add(session)
    elif agent.policy.hand_back_tokens is not None:
        agent.note_session(session)


def elsewhere(view: PolicyView, router: Router, call: Call) -> Call | None:
    """The same call on another node that speaks its dialect, matched and priced anew.

    None if there is no such node, or if the call would be refused there.
    """
    tried = (*call.tried, call.upstream.name)
    now_ns = clock.now_ns()
    parsed = call.parsed
    if call.asked != parsed.model:  # a route: all of its targets are looked at again
        parsed = rerouted(parsed, call.asked)
    upstream, spoken, parsed = router.find(
        parsed, call.dialect, caller=call.caller, view=view, now_ns=now_ns, tried=tried
    )
    model = parsed.model
    agent = view.agents.get(call.agent.policy.id)
    if upstream is None or agent is None or spoken is not call.dialect:
        return None
    terms = _terms(view, agent, call.caller, parsed, upstream)
    try:
        if not call.hands_back and (
            _check_state(view, agent, call.caller) or _check_measures(view, terms.measures)
        ):
            return None
        _check_price(terms, model)
        _check_bounded(parsed, terms.plan, upstream)
    except RefusedError:
        return None
    moved = Call(
        agent=agent,
        caller=call.caller,
        dialect=spoken,
        parsed=parsed,
        upstream=upstream,
        terms=terms,
        balances=view.shared(terms.balances, now_ns=now_ns),
        passed=call.passed,
        tried=tried,
    )
    moved.measures = ()  # it has passed them
    moved.hands_back, moved.asked = call.hands_back, call.asked
    if upstream.engine is call.upstream.engine and model == call.parsed.model:
        moved.prompt_tokens = call.prompt_tokens
    return moved


def _terms(
    view: PolicyView,
    agent: Agent,
    caller: Caller,
    parsed: ParsedRequest,
    upstream: Upstream | None,
) -> Terms:
    """What all calls of this caller for this model on this node share."""
    node = upstream.name if upstream else ""

    def compiled() -> Terms:
        provider = upstream.provider if upstream else ""
        subject = subject_of(
            view.snapshot.organization,
            agent.policy,
            session=caller.session,
            user=parsed.user,
            model=parsed.model,
            provider=provider,
            node=node,
            skill=caller.skill,
            tags=caller.tags,
        )
        return Terms(
            subject,
            plan=_plan(view, subject, caller),
            price=view.price(model=parsed.model, provider=provider),
            measures=view.measures.of(subject),
        )

    key = (
        agent.policy.id,
        parsed.model,
        parsed.user,
        node,
        caller.session,
        caller.skill,
        caller.delegation,
        *caller.tags.items(),
    )
    return view.terms(key, compiled)


def _check_state(view: PolicyView, agent: Agent, caller: Caller) -> Refuse | None:
    """Refuse who is killed. What a paused one is told, unless it may make a last call."""
    refusal = state_refusal(agent.state)
    if refusal is None and view.sessions:
        session = stopped_session(view, sessions_of(view, agent, caller))
        refusal = state_refusal(session.state, who="session") if session else None
    if refusal is not None and refusal.reason not in ("agent_paused", "session_paused"):
        raise RefusedError(refusal)
    return refusal


def _last_call(
    agent: Agent, caller: Caller, parsed: ParsedRequest, paused: Refuse
) -> ParsedRequest:
    """The request as the one call that a paused session may make to save its work.

    Raises:
        RefusedError: it has been made, or there is none.
    """
    limit = agent.hand_back_left(caller.session)
    if limit is None or parsed.sequences > 1:
        raise RefusedError(paused)
    return replace(parsed, output_limit=min(parsed.output_limit or limit, limit))


def _plan(view: PolicyView, subject: Subject, caller: Caller) -> Plan:
    """The hard budgets of a call; under a delegation also those of its ancestors."""
    if not caller.delegation:
        return view.plan(subject)
    return view.plan_of_tree(view.lineage(caller.delegation), subject)


def tree_caller_of(view: PolicyView, agent: Agent, headers: dict[bytes, bytes]) -> Caller:
    """The caller by its headers, in the session that its delegation names, if it brings one.

    Raises:
        HttpError: one of our own headers is malformed.
        RefusedError: the token is not one of ours, or was given to another agent.
    """
    caller = caller_of(headers)
    return _in_tree(view, agent, caller) if caller.delegation else caller


def _in_tree(view: PolicyView, agent: Agent, caller: Caller) -> Caller:
    try:
        lineage = view.lineage(caller.delegation)
    except LineageError as error:
        raise RefusedError(_foreign(str(error))) from error
    if lineage.agent != agent.policy.id:
        raise RefusedError(_foreign("the delegation was given to another agent"))
    return caller._replace(session=lineage.session, by_trace=False)


def _foreign(problem: str) -> Refuse:
    code = "bad_delegation"
    return Refuse(403, PERMISSION, problem[:1].upper() + problem[1:], code=code, reason=code)


def _check_measures(view: PolicyView, measures: tuple[Measure, ...]) -> Refuse | None:
    """Refuse whose budget stops calls. What one is told whose budget waits for people."""
    refusal = view.measures.refusal(measures) if measures else None
    if refusal is not None and refusal.reason != "budget_paused":
        raise RefusedError(refusal)
    return refusal


def _check_cards(
    view: PolicyView, agent: Agent, parsed: ParsedRequest, *, skill: str, now_ms: int
) -> None:
    if not agent.policy.requires_card:
        return
    denial = view.gate.deny(agent.policy, parsed.tools, skill=skill, now_ms=now_ms)
    if denial is not None:
        code = f"skill_card_{denial.code}"
        raise RefusedError(
            Refuse(status=403, type=PERMISSION, code=code, reason=code, message=denial.message)
        )


def _check_translatable(spoken: Dialect, parsed: ParsedRequest) -> None:
    name = spoken.untranslatable(parsed)
    if name:
        problem = f"{name!r} has no counterpart on the node that serves this model"
        raise RequestError(problem, param=name, code="not_translatable")


def _check_bounded(parsed: ParsedRequest, plan: Plan, upstream: Upstream) -> None:
    refusal = unbounded(parsed, plan, upstream)
    if refusal is not None:
        raise RefusedError(refusal)


def _check_price(terms: Terms, model: str) -> None:
    if terms.price is None and Unit.USD in terms.plan.units:
        raise RefusedError(unpriced(model))
