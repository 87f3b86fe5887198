"""What agents do: they call, give parts of their sessions to children, and some of them lie."""

from collections.abc import Sequence
from random import Random

from msgspec.structs import replace

from enforcement.rules.sessiontree import Level, Lineage, seal
from enforcement.rules.wire import Attribution
from enforcement.simulation.kernel import Kernel
from enforcement.simulation.organization import AGENTS, USERS, root_of
from enforcement.simulation.sidecar import Sidecar

PACES_MS = (130, 330)  # between the calls of one agent
NEW_SESSION = 0.05
DELEGATES = 0.06
LIES = 0.02
CHILD_CALLS = 0.5


class Load:
    """The agents of one world, until they are told to stop."""

    def __init__(self, kernel: Kernel, sidecars: Sequence[Sidecar]) -> None:
        self._kernel = kernel
        self._chance: Random = kernel.random
        self._sidecars = sidecars
        self._pace_ms = self._chance.choice(PACES_MS)
        self._sessions = dict.fromkeys(range(AGENTS), 0)
        self._children: dict[int, list[tuple[str, str]]] = {}  # by agent: sessions and tokens
        self._born = 0
        self.over = False

    def start(self) -> None:
        for agent in range(AGENTS):
            self._kernel.at(self._chance.uniform(20, 200), self._turn, agent)

    def _turn(self, agent: int) -> None:
        """An agent calls again and again; a new session now and then, and children of it."""
        chance = self._chance
        if self.over:
            return
        self._kernel.at(chance.expovariate(1 / self._pace_ms), self._turn, agent)
        if chance.random() < NEW_SESSION:
            self._sessions[agent] += 1
            self._children.pop(agent, None)
        sidecar, facts = chance.choice(self._sidecars), self._facts(agent)
        what = chance.random()
        if what < DELEGATES:
            self._delegate(sidecar, facts, agent)
        elif what < DELEGATES + LIES:
            self._lie(sidecar, facts)
        output = chance.choice([20, 80, 200, 10_000])
        prompt, limit = chance.randint(5, 60), chance.choice([64, 256])
        sidecar.run(sidecar.call, facts, prompt, output, limit)

    def _session(self, agent: int) -> str:
        return f"{agent}.{self._sessions[agent]}"

    def _facts(self, agent: int) -> Attribution:
        chance = self._chance
        session, token = self._session(agent), ""
        children = self._children.get(agent)
        if children and chance.random() < CHILD_CALLS:
            session, token = chance.choice(children)
        return Attribution(
            agent=str(agent),
            session=session,
            user=f"u{chance.randrange(USERS)}" if chance.random() < 0.3 else "",
            model="large" if chance.random() < 0.5 else "small",
            skill="search" if chance.random() < 0.3 else "",
            delegation=token,
        )

    def _delegate(self, sidecar: Sidecar, facts: Attribution, agent: int) -> None:
        chance = self._chance
        self._born += 1
        child = f"{facts.session}/{self._born}"

        def given(token: str) -> None:
            if root_of(child) == self._session(agent):
                self._children.setdefault(agent, []).append((child, token))

        percent, lasts_ms = chance.choice([20, 50, 100]), chance.randint(1_000, 6_000)
        sidecar.delegate(facts, child, percent=percent, lasts_ms=lasts_ms, given=given)

    def _lie(self, sidecar: Sidecar, facts: Attribution) -> None:
        """Somebody with a valid key asks for what is another's, or twice under one key."""
        other = (int(facts.agent) + 1) % AGENTS
        victim = self._session(other)
        match self._chance.randrange(3):
            case 0:
                own = replace(facts, delegation="", session=self._session(int(facts.agent)))
                sidecar.run(sidecar.lie, own, ("session", victim))
            case 1:
                levels = [Level(f"{victim}/x", facts.agent, []), Level(victim, str(other), [])]
                forged = seal(Lineage("part-x", levels), key=b"not the key")
                lied = replace(facts, session=f"{victim}/x", delegation=forged)
                sidecar.run(sidecar.lie, lied, ("session", victim))
            case _:
                sidecar.run(sidecar.ask_again_for_more)
