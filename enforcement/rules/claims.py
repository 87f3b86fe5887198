"""What callers say about themselves in the ways of well-known agents, gateways and SDKs.

Rules of this file:

1. Everything here is a claim. It may name a session, a user and tags of the agent whose key the
   call brings; it never names that agent.
2. A claim that does not fit its form is passed over, never repaired and never an error: it was
   written for somebody else. Our own headers (`x-comptroller-…`) are read elsewhere, strictly.
3. All is bounded: what is read, what comes out, and how many tags there are.
4. The order of each table is the precedence; the tables are documented in docs/clients.md.

Sources: the headers of Claude Code 2.1, Codex 0.169, LiteLLM 1.106 and NVIDIA Dynamo 1.6 as they
were seen on the wire; OpenCode's and SGLang's from their sources; attribute names from the
OpenTelemetry semantic conventions.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from enforcement.rules.tracecontext import BaggageMember, Trace

MAX_TAGS = 16
MAX_USER_CHARS = 200
MAX_METADATA = 64  # fields that are looked at
MAX_STRUCTURED = 4096  # bytes of a JSON object inside a header or field
CLIENT_TAG = "client"  # which agent program made the call, where it is a well-known one
AGENT_TAG = "agent"  # which of the agents behind one key made the call, by its own word

SESSION = re.compile(r"[!-~]{1,128}")
_SESSION_BYTES = re.compile(rb"[!-~]{1,128}")
TAG_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
TAG_VALUE = re.compile(r"[ -+\--~]{0,128}")

# A subagent of Claude Code is a session of its own.
SESSION_HEADERS = (
    b"x-dynamo-session-id",
    b"x-claude-code-agent-id",
    b"x-claude-code-session-id",
    b"x-litellm-session-id",
    b"x-litellm-trace-id",
    b"session-id",
    b"session_id",
    b"x-opencode-session",
    b"x-session-id",
)
SESSION_BAGGAGE = (b"session.id", b"gen_ai.conversation.id")
SESSION_METADATA = ("session_id", "thread_id", "conversation_id")
USER_HEADERS = (b"x-litellm-end-user-id",)
USER_BAGGAGE = (b"user.id", b"enduser.id")
AGENT_HEADERS = (b"x-agent-id",)
AGENT_BAGGAGE = (b"gen_ai.agent.name", b"gen_ai.agent.id", b"agent.id")
TAG_BAGGAGE = b"comptroller.tag."
LITELLM_TAGS = b"x-litellm-tags"
CODEX_TURN = b"x-codex-turn-metadata"

_RARE = frozenset((*USER_HEADERS, *AGENT_HEADERS, LITELLM_TAGS, CODEX_TURN))
# A call with none of these claims nothing by its headers, save by its User-Agent.
CLAIMING = _RARE.union(SESSION_HEADERS)

# Programs by the beginning of their User-Agent; `AI-Agent/NAME` names any other.
_PROGRAMS = (
    ("claude-cli/", "claude-code"),
    ("codex", "codex"),
    ("opencode/", "opencode"),
    ("litellm/", "litellm"),
    ("langchain", "langchain"),
    ("GeminiCLI/", "gemini-cli"),
)
_AI_AGENT = re.compile(r"(?:^|[ (])AI-Agent/([A-Za-z0-9_.-]{1,64})(?:$|[ );])")
_OLD_CLAUDE_USER = re.compile(
    r"user_([0-9a-f]{64})_account_([0-9a-f-]{0,36})_session_([0-9a-f-]{36})"
)
_MAX_PROGRAMS = 1024
_programs: dict[bytes, str] = {}


class Claims(NamedTuple):
    """What was found; empty where nothing was."""

    session: str = ""
    user: str = ""
    tags: dict[str, str] = {}


NOTHING = Claims()


def program_of(user_agent: bytes) -> str:
    """The well-known agent program of a User-Agent; empty for any other."""
    cached = _programs.get(user_agent)
    if cached is not None:
        return cached
    if len(_programs) >= _MAX_PROGRAMS:
        _programs.clear()
    text = user_agent[:512].decode("latin-1")
    named = _AI_AGENT.search(text)
    found = (
        named[1] if named else _first(name for start, name in _PROGRAMS if text.startswith(start))
    )
    if len(user_agent) <= 512:
        _programs[user_agent] = found
    return found


def header_claims(headers: Mapping[bytes, bytes], trace: Trace) -> Claims:
    """What headers and baggage say; the headers of a well-known agent come first."""
    session = _header_session(headers)
    if not trace.baggage and _RARE.isdisjoint(headers):  # the usual agent names its session alone
        return Claims(session) if session else NOTHING
    baggage = {member.key: member for member in trace.baggage}
    session = session or _first_fit(SESSION, _baggage_texts(baggage, SESSION_BAGGAGE))
    user = _first(
        user_text(text)
        for texts in (_texts(headers, USER_HEADERS), _baggage_texts(baggage, USER_BAGGAGE))
        for text in texts
    )
    tags: dict[str, str] = {}
    add_tags(tags, _litellm_tags(headers.get(LITELLM_TAGS, b"")))
    add_tags(tags, _baggage_tags(trace.baggage))
    agent = _first_fit(
        TAG_VALUE,
        _texts(headers, AGENT_HEADERS),
        [_text(_object(headers.get(CODEX_TURN, b"")), "agent_name")],
        _baggage_texts(baggage, AGENT_BAGGAGE),
    )
    add_tags(tags, [(AGENT_TAG, agent)])
    return Claims(session, user, tags)


def _header_session(headers: Mapping[bytes, bytes]) -> str:
    for name in SESSION_HEADERS:
        value = headers.get(name)
        if value is not None and _SESSION_BYTES.fullmatch(value):
            return value.decode("ascii")
    return ""


def body_claims(fields: Mapping[str, Any], *, user: str) -> Claims:
    """What `metadata` and `safety_identifier` of a body say. `user`: what its dialect named."""
    metadata = fields.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    told = _text(metadata, "user_id")
    claude_user, claude_session = claude_code_user(told)
    session = _first_fit(
        SESSION, (_text(metadata, name) for name in SESSION_METADATA), [claude_session]
    )
    if claude_user and user == told:
        user = claude_user
    user = user or user_text(fields.get("safety_identifier")) or claude_user or user_text(told)
    tags: dict[str, str] = {}
    taken = (*SESSION_METADATA, "user_id")
    some = islice(metadata.items(), MAX_METADATA)
    add_tags(tags, ((name, value) for name, value in some if name not in taken))
    return Claims(session, user, tags)


def claude_code_user(told: str) -> tuple[str, str]:
    """User and session inside the `metadata.user_id` of Claude Code; empty if it is none.

    It is a JSON object with `device_id`, `account_uuid` and `session_id`, before 2026 one text of
    the three.
    """
    if told.startswith("{"):
        parts = _object(told)
        session = _text(parts, "session_id")
        return _text(parts, "account_uuid") or _text(parts, "device_id"), session
    match = _OLD_CLAUDE_USER.fullmatch(told)
    return ("", "") if match is None else (match[2] or match[1], match[3])


def user_text(value: object) -> str:
    """A user as it may stand in a usage event; empty if it does not fit."""
    if not isinstance(value, str) or len(value) > MAX_USER_CHARS or not value.isprintable():
        return ""
    return value


def add_tags(tags: dict[str, str], found: Iterable[tuple[object, object]]) -> None:
    """Add what fits and is not said yet, up to the limit."""
    for name, value in found:
        if len(tags) >= MAX_TAGS:
            return
        text = str(value) if type(value) is int else value
        if (
            isinstance(name, str)
            and isinstance(text, str)
            and text
            and TAG_NAME.fullmatch(name)
            and TAG_VALUE.fullmatch(text)
        ):
            tags.setdefault(name, text)


def _first(found: Iterable[str]) -> str:
    return next((text for text in found if text), "")


def _first_fit(form: re.Pattern[str], *sources: Iterable[str]) -> str:
    return _first(text for source in sources for text in source if form.fullmatch(text))


def _texts(headers: Mapping[bytes, bytes], names: Iterable[bytes]) -> Iterator[str]:
    """The headers that are there. Bytes beyond ASCII fit no form."""
    return (value.decode("latin-1") for name in names if (value := headers.get(name)) is not None)


def _baggage_texts(baggage: Mapping[bytes, BaggageMember], names: Iterable[bytes]) -> Iterator[str]:
    return (baggage[name].text for name in names if name in baggage)


def _baggage_tags(baggage: Iterable[BaggageMember]) -> Iterator[tuple[str, str]]:
    for member in baggage:
        if member.key.startswith(TAG_BAGGAGE):
            yield member.key[len(TAG_BAGGAGE) :].decode("ascii"), member.text


def _litellm_tags(said: bytes) -> Iterator[tuple[str, str]]:
    """`name:value` and `name=value` of a list; LiteLLM's tags without a value name nothing here."""
    for item in said[:MAX_STRUCTURED].decode("latin-1").split(","):
        name, mark, value = item.strip().partition("=" if "=" in item else ":")
        if mark:
            yield name.strip(), value.strip()


def _object(said: bytes | str) -> dict[str, Any]:
    """A small JSON object; empty if it is none."""
    if not said or len(said) > MAX_STRUCTURED:
        return {}
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(parts: Mapping[str, Any], name: str) -> str:
    value = parts.get(name)
    return value if isinstance(value, str) else ""
