"""Which node takes a call: of those that serve its model, speak its dialect and do not fail."""

from enforcement.rules.dialects import BY_PATH, TRANSLATIONS, Dialect, Passed
from enforcement.rules.nodechoice import Load, for_session, least_loaded
from enforcement.sidecar.engines import Upstream


class Router:
    """Which serving nodes have which model, and who of them speaks what."""

    def __init__(self, upstreams: tuple[Upstream, ...]) -> None:
        self.upstreams = upstreams
        self._leaving: list[Upstream] = []  # replaced, with calls that still run
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
                for family in upstream.spoken:
                    self._speakers.setdefault((model, family), []).append(upstream)
            for path in upstream.target.passes:
                self._passed[path.encode("ascii")] = Passed(path)

    def replace(self, upstreams: tuple[Upstream, ...]) -> None:
        """Take other nodes; those that are gone finish what runs on them."""
        self._leaving += [node for node in self.upstreams if node not in upstreams]
        self.upstreams = upstreams
        self.refresh()

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

    def route(
        self,
        model: str,
        dialect: Dialect,
        *,
        session: str = "",
        tried: tuple[str, ...] = (),
        now_ns: int = 0,
    ) -> tuple[Upstream | None, Dialect]:
        """The node that takes a call, and how to speak to it; None if none can now.

        One that needs a translation is taken only if no other serves the model. Nodes that were
        tried, or that fail, are left out; healthy ones come first.
        """
        nodes = self._speakers.get((model, dialect.upstream_family))
        translation = TRANSLATIONS.get(dialect.endpoint)
        if not nodes and translation is not None:
            dialect = translation
            nodes = self._speakers.get((model, dialect.upstream_family))
        if not nodes:
            return None, dialect
        if len(nodes) == 1 and not tried:
            return (None if nodes[0].breaker.refuses(now_ns) else nodes[0]), dialect
        return _choose(nodes, session=session, tried=tried, now_ns=now_ns), dialect

    def rests_for_ns(self, model: str, now_ns: int) -> int:
        """How long the nodes of a model are left alone because they fail; 0: one is not."""
        nodes = self._by_model.get(model, ())
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
