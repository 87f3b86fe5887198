"""Whom a call is charged to, by all that callers say: over the wire, into events and budgets."""

import json
from pathlib import Path
from typing import Any

from enforcement.rules.policy import Unit
from enforcement.rules.wire import UsageEvent
from tests.sidecar.plane import Plane
from tests.sidecar.stack import AGENT, Stack, agent, budget, chat, in_loop, stack

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


async def booked(world: Stack, body: dict[str, Any] | None = None, **headers: str) -> UsageEvent:
    """Make a call; the event of it."""
    known = set(world.plane.events)
    status, _, answer = await world.post(chat(max_tokens=1) | (body or {}), **headers)
    assert status == 200, answer
    await world.quiet()
    (event,) = [event for event in world.plane.events.values() if event.id not in known]
    return event


@in_loop
async def test_the_better_word_names_the_session(tmp_path: Path) -> None:
    metadata = {"metadata": {"session_id": "by-body"}}
    async with stack(tmp_path) as world:
        sessions = [
            (await booked(world, body, **headers)).session
            for body, headers in (
                (None, {}),
                (None, {"traceparent": TRACE}),
                (metadata, {"traceparent": TRACE}),
                (metadata, {"baggage": "session.id=by-baggage"}),
                (metadata, {"session_id": "by-agent", "baggage": "session.id=by-baggage"}),
                (metadata, {"session_id": "by-agent", "x_comptroller_session": "by-us"}),
            )
        ]
    assert sessions == ["", "a" * 32, "by-body", "by-baggage", "by-agent", "by-us"]


@in_loop
async def test_the_better_word_names_the_user(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        users = [
            (await booked(world, body, **headers)).user
            for body, headers in (
                ({}, {"baggage": "user.id=by-baggage"}),
                ({}, {"baggage": "user.id=by-baggage", "x_litellm_end_user_id": "by-litellm"}),
                ({"metadata": {"user_id": "by-metadata"}}, {"baggage": "user.id=by-baggage"}),
                ({"user": "by-body"}, {"baggage": "user.id=by-baggage"}),
                ({"user": "by-body"}, {"x_comptroller_user": "by us"}),
            )
        ]
    assert users == ["by-baggage", "by-litellm", "by-metadata", "by-body", "by us"]


@in_loop
async def test_tags_come_together_and_ours_win(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        event = await booked(
            world,
            {"metadata": {"task": "by-body", "run": "7"}},
            x_comptroller_tags="task=by-us",
            x_litellm_tags="env:prod",
            x_agent_id="planner",
            user_agent="claude-cli/2.1.197 (external, cli)",
        )
    assert event.tags == {
        "task": "by-us",
        "env": "prod",
        "agent": "planner",
        "client": "claude-code",
        "run": "7",
    }


@in_loop
async def test_no_claim_makes_another_agent_pay(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(2, Unit.REQUESTS)])
    async with stack(tmp_path, plane=plane) as world:
        for n in range(2):
            event = await booked(
                world,
                {"metadata": {"agent": "agent-2", "agent_id": "agent-2"}},
                x_agent_id=f"agent-{n}",
                baggage="gen_ai.agent.id=agent-2,agent.id=agent-2",
            )
            assert event.agent == AGENT
        status, _, _ = await world.post(chat(max_tokens=1), x_agent_id="agent-2")
    assert status == 402


@in_loop
async def test_a_budget_for_each_claimed_agent_behind_one_key(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()], budgets=[budget(1, Unit.REQUESTS, per="tag:agent")])
    async with stack(tmp_path, plane=plane) as world:
        statuses = [
            (await world.post(chat(max_tokens=1), x_agent_id=name))[0] for name in ("a", "b", "a")
        ]
    assert statuses == [200, 200, 402]


@in_loop
async def test_trace_and_baggage_go_upstream_written_anew(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        await booked(
            world,
            traceparent=TRACE,
            tracestate="a=1 ,, b=2",
            baggage="k = v ;p , comptroller.tag.task=t",
            x_comptroller_session="s",
            x_comptroller_user="ann",
            x_comptroller_tags="a=b",
            x_litellm_tags="c=d",
            cookie="secret",
        )
        await booked(world, traceparent=TRACE + "x", tracestate="a=1", baggage="k=v, broken")
    first, second = (head.lower() for head in world.engine.heads)
    assert f"traceparent: {TRACE}\r\ntracestate: a=1,b=2\r\nbaggage: k=v;p\r\n" in first
    assert "comptroller" not in first
    assert "litellm" not in first
    assert "secret" not in first
    assert "trace" not in second
    assert "baggage" not in second


@in_loop
async def test_our_own_headers_must_be_well_formed(tmp_path: Path) -> None:
    async with stack(tmp_path) as world:
        answers = [
            await world.post(chat(), **{name: value})
            for name, value in (
                ("x_comptroller_user", "a" * 201),
                ("x_comptroller_session", "two words"),
                ("x_comptroller_tags", "a"),
            )
        ]
        assert world.engine.calls == 0
    assert [status for status, _, _ in answers] == [400] * 3
    assert json.loads(answers[0][2])["error"]["message"] == "malformed x-comptroller-user"
