"""What callers say in the ways of well-known agents: precedence, forms, bounds."""

import json
from typing import Any

import pytest

from enforcement.rules.claims import (
    MAX_TAGS,
    SESSION_HEADERS,
    Claims,
    body_claims,
    claude_code_user,
    header_claims,
    program_of,
)
from enforcement.rules.tracecontext import NO_TRACE, trace_of

CLAUDE_SESSION = "9790b57e-9b09-4a6c-8215-7a83f4e3a979"


def claims(**headers: str) -> Claims:
    said = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return header_claims(said, trace_of(said))


def test_an_earlier_header_names_the_session() -> None:
    said = {name: b"from-%b" % name for name in SESSION_HEADERS}
    for name in SESSION_HEADERS:
        assert header_claims(said, NO_TRACE).session == f"from-{name.decode()}"
        del said[name]
    assert header_claims(said, NO_TRACE).session == ""


def test_a_subagent_of_claude_code_is_a_session_of_its_own() -> None:
    found = claims(x_claude_code_session_id=CLAUDE_SESSION, x_claude_code_agent_id="sub-1")
    assert found.session == "sub-1"


@pytest.mark.parametrize("value", ["", "two words", "x" * 129, "a, b", "\u00e9"])
def test_a_session_that_does_not_fit_is_passed_over(value: str) -> None:
    assert claims(session_id=value, x_session_id="good").session == "good"


def test_baggage_names_session_user_agent_and_tags() -> None:
    found = claims(
        baggage="session.id=s-1,user.id=ann%20b,gen_ai.agent.name=planner,"
        "comptroller.tag.task=t-1,comptroller.tag.bad%20name=x,other=y"
    )
    assert found == Claims("s-1", "ann b", {"task": "t-1", "agent": "planner"})
    assert claims(x_session_id="s-2", baggage="session.id=s-1").session == "s-2"


def test_litellm_names_user_and_tags() -> None:
    found = claims(x_litellm_end_user_id="ann", x_litellm_tags="team:red, env=prod,plain")
    assert found == Claims("", "ann", {"team": "red", "env": "prod"})


def test_codex_names_its_agent() -> None:
    turn = json.dumps({"agent_name": "root", "session_id": "s"})
    assert claims(session_id="s", x_codex_turn_metadata=turn) == Claims("s", "", {"agent": "root"})
    assert claims(x_agent_id="mine", x_codex_turn_metadata=turn).tags == {"agent": "mine"}


@pytest.mark.parametrize("turn", ["{", "[" * 4000, '{"agent_name":7}', "x" * 5000, "[]"])
def test_a_turn_that_cannot_be_read_says_nothing(turn: str) -> None:
    assert claims(x_codex_turn_metadata=turn) == Claims()


@pytest.mark.parametrize(
    ("user_agent", "program"),
    [
        ("claude-cli/2.1.197 (external, sdk-cli)", "claude-code"),
        ("codex_exec/0.169.0 (Debian 12.0.0; x86_64) unknown", "codex"),
        ("opencode/1.2", "opencode"),
        ("OpenAI/Python 3.54.0", ""),
        ("mytool/1.0 AI-Agent/goose", "goose"),
        ("mytool/1.0 AI-Agent/" + "x" * 65, ""),
        ("evil claude-cli/1", ""),
        ("", ""),
    ],
)
def test_well_known_programs_are_known_by_their_user_agent(user_agent: str, program: str) -> None:
    for _ in range(2):
        assert program_of(user_agent.encode()) == program


def body(**metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata}


def test_metadata_names_session_user_and_tags() -> None:
    found = body_claims(body(thread_id="t-1", user_id="ann", task="x", n=3, on=True), user="")
    assert found == Claims("t-1", "ann", {"task": "x", "n": "3"})


def test_the_dialects_user_stands_before_what_metadata_says() -> None:
    fields = body(user_id="ann") | {"safety_identifier": "hash-1"}
    assert body_claims(fields, user="bob").user == "bob"
    assert body_claims(fields, user="").user == "hash-1"


def test_claude_code_puts_three_ids_into_its_user() -> None:
    told = json.dumps({"device_id": "d-1", "account_uuid": "", "session_id": CLAUDE_SESSION})
    assert claude_code_user(told) == ("d-1", CLAUDE_SESSION)
    assert body_claims(body(user_id=told), user=told) == Claims(CLAUDE_SESSION, "d-1", {})
    old = f"user_{'ab' * 32}_account__session_{CLAUDE_SESSION}"
    assert claude_code_user(old) == ("ab" * 32, CLAUDE_SESSION)


@pytest.mark.parametrize("told", ["{", "user_x_account__session_y", "ann", "{" * 5000])
def test_other_users_are_only_users(told: str) -> None:
    assert claude_code_user(told) == ("", "")


@pytest.mark.parametrize("metadata", [None, "x", 7, ["a"], {}])
def test_metadata_of_another_form_says_nothing(metadata: object) -> None:
    assert body_claims({"metadata": metadata}, user="ann") == Claims("", "ann", {})


def test_metadata_is_bounded() -> None:
    many = {f"k{n}": "v" for n in range(100_000)}
    assert len(body_claims({"metadata": many}, user="").tags) == MAX_TAGS
    odd = {f"k {n}": "v" for n in range(100_000)} | {"last": "v"}
    assert body_claims({"metadata": odd}, user="").tags == {}
    long = {"a": "v" * 129, "b" * 65: "v", "c": "x,y", "d": "", "e": "\n", "user_id": "u" * 201}
    assert body_claims({"metadata": long}, user="") == Claims()
