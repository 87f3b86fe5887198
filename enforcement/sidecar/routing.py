"""Which node takes a call: of those that serve its model, speak its dialect and do not fail."""

from collections.abc import Iterable

from enforcement.rules.dialects import BY_PATH, TRANSLATIONS, Dialect, Passed
from enforcement.rules.modelroutes import (
    Choose,
    Lane,
    ModelRoute,
    Target,
    cheapest_first,
    eligible,
    prompt_guess,
)
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.nodechoice import Load, for_session, least_loaded
from enforcement.rules.requests import ParsedRequest, rerouted
from enforcement.rules.verdicts import MAX_RETRY_AFTER_S, UNAVAILABLE, Refuse
from enforcement.sidecar.answers import invalid
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.identity import Caller
from enforcement.sidecar.policy import PolicyView

DRAIN_RETRY_AFTER_S = 30
USUAL_OUTPUT = 1_000  # tokens, where prices are compared for calls without a limit


class Router:
    """Which serving nodes have which model, and who of them speaks what."""

    def __init__(
        self, upstreams: tuple[Upstream, ...], routes: tuple[ModelRoute, ...] = ()
    ) -> None:
        self.upstreams = upstreams
        self._routes = {route.model: route for route in routes}
        self._leaving: list[Upstream] = []  # replaced, with calls that still run
        self._draining: frozenset[str] = frozenset()  # nodes that people take out of service
        self._by_model: dict[str, list[Upstream]] = {}
        self._speakers: dict[tuple[str, str], list[Upstream]] = {}
        self._passed: dict[bytes, Dialect] = {}

    def refresh(self) -> None:
        """Take up what the last probes found."""
        self._by_model = {}
        self._speakers, self._passed = {}, {}
        for upstream in self.upstreams:
            for model in upstream.models:
                self._by_model.setdefault(model, []).append(upstream)
                for family in upstream.spoken if upstream.name not in self._draining else ():
                    self._speakers.setdefault((model, family), []).append(upstream)
            for path in upstream.target.passes:
                self._passed[path.encode("ascii")] = Passed(path)
        for route in self._routes.values():
            nodes = [node for target in route.targets for node in self._nodes_of(target)]
            if nodes:
                self._by_model[route.model] = nodes

    def replace(self, upstreams: tuple[Upstream, ...], routes: tuple[ModelRoute, ...] = ()) -> None:
        """Take other nodes and routes; nodes that are gone finish what runs on them."""
        self._routes = {route.model: route for route in routes}
        self._leaving += [node for node in self.upstreams if node not in upstreams]
        self.upstreams = upstreams
        self.refresh()

    def drain(self, names: Iterable[str]) -> None:
        """Give these nodes no new call, and all others again. What runs on them goes on."""
        draining = frozenset(names)
        if draining != self._draining:
            self._draining = draining
            self.refresh()

    def drains(self, model: str) -> bool:
        """Whether a model has nodes, and every one of them is being taken out of service."""
        nodes = self._by_model.get(model, ())
        return bool(nodes) and all(node.name in self._draining for node in nodes)

    def every(self) -> list[Upstream]:
        """The nodes, and those that are leaving; what has left is closed here."""
        for node in self._leaving:
            if not node.running:
                node.pool.close()
        self._leaving = [node for node in self._leaving if node.running]
        return [*self.upstreams, *self._leaving]

    def dialect_at(self, path: bytes) -> Dialect | None:
        """The dialect of a route, if calls there are understood or passed on."""
        return BY_PATH.get(path) or self._passed.get(path)

    def models(self) -> dict[str, list[Upstream]]:
        return self._by_model

    def only_model(self, dialect: Dialect) -> str:
        """The one model that a call means which names none; empty if there is not just one."""
        family = dialect.upstream_family
        models = [model for model, spoken in self._speakers if spoken == family]
        return models[0] if len(models) == 1 else ""

    def find(
        self,
        parsed: ParsedRequest,
        dialect: Dialect,
        *,
        caller: Caller,
        view: PolicyView,
        now_ns: int,
        tried: tuple[str, ...] = (),
    ) -> tuple[Upstream | None, Dialect, ParsedRequest]:
        """The node that takes a call, how to speak to it, and the request with its model's name.

        Where the name that was asked for is a route, the first of its targets that has a free
        slot; if none has, the first that can.
        """
        session = caller.session
        route = self._routes.get(parsed.model) if self._routes else None
        if route is None:
            upstream, spoken = self.route(
                parsed.model, dialect, session=session, tried=tried, now_ns=now_ns
            )
            return upstream, spoken, parsed
        targets = self._ordered(route, parsed, view=view, lane=caller.lane)
        for free in (True, False):
            for target in targets:
                upstream, spoken = self.route(
                    target.model,
                    dialect,
                    session=session,
                    tried=tried,
                    only=target.upstreams,
                    free=free,
                    now_ns=now_ns,
                )
                if upstream is not None:
                    return upstream, spoken, rerouted(parsed, target.model)
        return None, dialect, parsed

    def _ordered(
        self, route: ModelRoute, parsed: ParsedRequest, *, view: PolicyView, lane: Lane
    ) -> list[Target]:
        prompt = parsed.prompt_tokens or prompt_guess(len(parsed.encoded))
        targets = eligible(route, prompt_tokens=prompt, lane=lane)
        if route.choose is not Choose.CHEAPEST:
            return targets
        usage = TokenUsage(input_tokens=prompt, output_tokens=parsed.output_limit or USUAL_OUTPUT)

        def cost(target: Target) -> int | None:
            providers = {node.provider for node in self._nodes_of(target)}
            prices = [view.price(model=target.model, provider=name) for name in providers]
            return max((charge_nanos(usage, price) for price in prices if price), default=None)

        return cheapest_first(targets, cost)

    def _nodes_of(self, target: Target) -> list[Upstream]:
        nodes = self._by_model.get(target.model, [])
        return [n for n in nodes if not target.upstreams or n.name in target.upstreams]

    def route(
        self,
        model: str,
        dialect: Dialect,
        *,
        session: str = "",
        tried: tuple[str, ...] = (),
        only: tuple[str, ...] = (),
        free: bool = False,
        now_ns: int = 0,
    ) -> tuple[Upstream | None, Dialect]:
        """The node that takes a call for a model, and how to speak to it; None if none can now.

        One that needs a translation is taken only if no other serves the model. Nodes that were
        tried, or that fail, are left out; healthy ones come first. `only`: of these; `free`: with
        a slot that is free.
        """
        nodes = self._speakers.get((model, dialect.upstream_family))
        translation = TRANSLATIONS.get(dialect.endpoint)
        if not nodes and translation is not None:
            dialect = translation
            nodes = self._speakers.get((model, dialect.upstream_family))
        if not nodes:
            return None, dialect
        if only or free:
            nodes = [
                node
                for node in nodes
                if (not only or node.name in only) and not (free and node.full)
            ]
        if len(nodes) == 1 and not tried:
            return (None if nodes[0].breaker.refuses(now_ns) else nodes[0]), dialect
        return _choose(nodes, session=session, tried=tried, now_ns=now_ns), dialect

    def rests_for_ns(self, model: str, now_ns: int) -> int:
        """How long the nodes of a model are left alone because they fail; 0: one is not."""
        nodes = [n for n in self._by_model.get(model, ()) if n.name not in self._draining]
        return min((node.breaker.rests_for_ns(now_ns) for node in nodes), default=0)

    @property
    def complete(self) -> bool:
        """Whether every node has told its models."""
        return all(upstream.models for upstream in self.upstreams)


def _choose(
    nodes: list[Upstream], *, session: str, tried: tuple[str, ...], now_ns: int
) -> Upstream | None:
    able = [n for n in nodes if n.name not in tried and not n.breaker.refuses(now_ns)]
    able = [node for node in able if node.healthy] or able
    if not able:
        return None
    loads = [Load(node.name, node.running, node.target.weight) for node in able]
    return able[for_session(session, loads) if session else least_loaded(loads)]


def no_route(router: Router, model: str, *, now_ns: int) -> Refuse:
    """What a call is told that no node takes."""
    if router.drains(model):
        return Refuse(
            status=503,
            type=UNAVAILABLE,
            code="nodes_draining",
            reason="nodes_draining",
            message=f"The nodes that serve {model!r} are being taken out of service",
            retry_after_s=DRAIN_RETRY_AFTER_S,
        )
    rests_ns = router.rests_for_ns(model, now_ns)
    if rests_ns:
        return Refuse(
            status=503,
            type=UNAVAILABLE,
            code="nodes_failing",
            reason="nodes_failing",
            message=f"The nodes that serve {model!r} fail, and are left alone for a moment",
            retry_after_s=min(-(-rests_ns // 1_000_000_000), MAX_RETRY_AFTER_S),
        )
    if not router.complete:
        return Refuse(
            status=503,
            type=UNAVAILABLE,
            code="no_serving_node",
            reason="no_serving_node",
            message="A serving node has not answered yet",
            retry_after_s=2,
        )
    if model in router.models():
        message = f"No node that serves {model!r} speaks this dialect; see --dialects"
        return invalid(message, status=404, code="dialect_not_served", param="model")
    message = f"The model {model!r} does not exist here" if model else "A model must be named"
    return invalid(message, status=404, code="model_not_found", param="model")
