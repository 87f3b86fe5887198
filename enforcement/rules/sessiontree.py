"""Session trees: what a session that got its budget from another one is charged to (L14).

A session delegates part of its balances to a child session, which gets a token that names all its
ancestors. Rules of what a call under such a token holds on:

1. On its own balance of each budget that was delegated to it, and of no ancestor of that budget:
   there the amount counts as given already.
2. On every other balance that an ancestor's call would hold on: its agent's, its project's, those
   of budgets for each session that were not delegated.
3. On what its own agent and session match anyway.

The token is sealed by the control plane under a key that sidecars have too: it proves who gave
what to whom, it carries no money. Money is in the balances, where an ended child has none.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from enforcement.rules.matching import BalanceOf, Plan, Subject
from enforcement.rules.policy import AgentPolicy, BudgetPolicy, Per

MAX_DEPTH = 8
MAX_TOKEN_CHARS = 6_000
_TAG_BYTES = 16
_LABEL = b"comptroller session tree 1\n"


class Level(Struct, frozen=True, array_like=True):
    """A session of the tree, its agent, and the budgets that were delegated to it."""

    session: str
    agent: str
    budgets: list[str]


class Lineage(Struct, frozen=True):
    """A session and its ancestors, the youngest first; the last one was given nothing."""

    delegation: str
    levels: list[Level]

    @property
    def session(self) -> str:
        return self.levels[0].session

    @property
    def agent(self) -> str:
        return self.levels[0].agent

    @property
    def depth(self) -> int:
        return len(self.levels) - 1


class LineageError(ValueError):
    """A delegation token that nobody sealed, or that names nothing."""


def key_of(pepper: bytes) -> bytes:
    """The key of an organization's tokens."""
    return hmac.new(pepper, _LABEL, hashlib.sha256).digest()


def seal(lineage: Lineage, *, key: bytes) -> str:
    body = msgspec.json.encode(lineage)
    return urlsafe_b64encode(_tag(body, key) + body).decode("ascii").rstrip("=")


def unseal(token: str, *, key: bytes) -> Lineage:
    """What a token says.

    Raises:
        LineageError: it is not one of ours.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise LineageError("the delegation token is too long")
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (Base64Error, ValueError) as error:
        raise LineageError("the delegation token cannot be read") from error
    tag, body = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(body, key)):
        raise LineageError("the delegation token is not one of this organization")
    lineage = msgspec.json.decode(body, type=Lineage)
    if not 1 <= lineage.depth <= MAX_DEPTH:
        raise LineageError("the delegation token names no parent")
    return lineage


def _tag(body: bytes, key: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()[:_TAG_BYTES]


def session_of(lineage: Lineage, budget: str) -> str:
    """Whose balance of a budget for each session a call of the youngest is charged to."""
    for level in lineage.levels[:-1]:
        if budget in level.budgets:
            return level.session
    return lineage.levels[-1].session


def is_given(lineage: Lineage, value: str) -> bool:
    """Whether a session's balance came from its parent: only a delegation makes such a one."""
    return value != lineage.levels[-1].session


def pairs_of(
    lineage: Lineage,
    *,
    subject_at: Callable[[Level], Subject],
    plan: Callable[[Subject], Plan],
) -> dict[BalanceOf, BudgetPolicy]:
    """The balances that a call is charged to, each with its budget."""
    found: dict[BalanceOf, BudgetPolicy] = {}
    for level in lineage.levels:
        subject = subject_at(level)
        planned = plan(subject)
        for budget, (_, own) in zip(planned.budgets, planned.balances(subject), strict=True):
            value = session_of(lineage, budget.id) if budget.per == Per.SESSION else own
            found[budget.id, value] = budget
    return found


def at_level(subject: Subject, agent: AgentPolicy, level: Level) -> Subject:
    """A call's subject as if a session of its tree had made it."""
    return replace(
        subject,
        agent=agent.id,
        team=agent.team,
        project=agent.project,
        session=level.session,
    )
