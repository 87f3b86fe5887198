"""How each agent behaves. All use the official `openai` client and know nothing of Comptroller."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controlplane.demo.cast import CHATTY, METERED, RUNAWAY, STEADY, UNPRICED, Role

if TYPE_CHECKING:
    from openai import APIError, OpenAI

STORY = "Tell me a very long story about a clerk who counts every coin of the kingdom."
RUNAWAY_CALLS_MAX = 20
TIMEOUT_S = 180  # also on a machine that is busy with other things


@dataclass
class Seen:
    """What an agent has seen of its calls, in its own words."""

    answered: int = 0
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def play(role: Role, *, base_url: str, key: str) -> Seen:
    """Let an agent do what it does."""
    from openai import OpenAI

    # Retries are off, so that every refusal is seen once: the demo counts them.
    with OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S) as client:
        seen = Seen()
        _BEHAVIOUR[role.slug](client, role, seen)
        return seen


def _call(seen: Seen, make: Callable[[], None]) -> bool:
    """One call. The answer is whether it was answered; refusals are remembered in words."""
    from openai import APIError

    try:
        make()
    except APIError as error:
        seen.refused.append(_words_of(error))
        return False
    seen.answered += 1
    return True


def _words_of(error: "APIError") -> str:
    body = error.body if isinstance(error.body, dict) else {}
    status = getattr(error, "status_code", "no answer:")
    return f"{status} {body.get('reason') or error.code or error.type or error.message}"


def _ask(client: "OpenAI", role: Role, seen: Seen, *, max_tokens: int) -> bool:
    """One call whose answer comes as a whole."""

    def make() -> None:
        answer = client.chat.completions.create(
            model=role.model,
            messages=[{"role": "user", "content": STORY}],
            max_tokens=max_tokens,
            extra_body={"ignore_eos": True},
        )
        _note(answer.model_extra, seen)

    return _call(seen, make)


def _note(extra: dict[str, Any] | None, seen: Seen) -> None:
    """What the sidecar says about an answer that it shortened."""
    note = (extra or {}).get("comptroller")
    if isinstance(note, dict):
        seen.notes.append(str(note["outcome"]))


def _steady(client: "OpenAI", role: Role, seen: Seen) -> None:
    for _ in range(3):
        _ask(client, role, seen, max_tokens=48)


def _chatty(client: "OpenAI", role: Role, seen: Seen) -> None:
    for _ in range(6):
        _ask(client, role, seen, max_tokens=8)


def _runaway(client: "OpenAI", role: Role, seen: Seen) -> None:
    for _ in range(RUNAWAY_CALLS_MAX):
        if not _ask(client, role, seen, max_tokens=160):
            return


def _metered(client: "OpenAI", role: Role, seen: Seen) -> None:
    """One endless stream; it reads until somebody ends it."""

    def make() -> None:
        stream = client.chat.completions.create(
            model=role.model,
            messages=[{"role": "user", "content": STORY}],
            max_tokens=1500,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for chunk in stream:
            _note(chunk.model_extra, seen)

    _call(seen, make)


def _unpriced(client: "OpenAI", role: Role, seen: Seen) -> None:
    _ask(client, role, seen, max_tokens=8)


_BEHAVIOUR: dict[str, Callable[["OpenAI", Role, Seen], None]] = {
    STEADY.slug: _steady,
    CHATTY.slug: _chatty,
    RUNAWAY.slug: _runaway,
    METERED.slug: _metered,
    UNPRICED.slug: _unpriced,
}
