"""Child sessions at the sidecar: how they are made, and what their calls hold on."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from enforcement.rules.policy import BudgetPolicy, Unit
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import Stack, agent, budget, chat, in_loop, stack

PATH = "/comptroller/v1/delegations"
RUN = budget(1_000, Unit.TOKENS, id="run", name="Run", per="session")
OTHER = budget(10, Unit.REQUESTS, id="other", name="Other", per="session")


def plane(*more: BudgetPolicy) -> Plane:
    return Plane(agents=[agent()], budgets=[RUN, *more])


async def give(world: Stack, amount: int, **headers: str) -> dict[str, Any]:
    wish = {"child_session": "s1/c", "amounts": {"run": amount}}
    status, _, body = await world.post(wish, path=PATH, x_comptroller_session="s1", **headers)
    assert status == 200, body
    return dict(json.loads(body))


@in_loop
async def test_a_childs_call_holds_on_its_part_and_its_parents_others(tmp_path: Path) -> None:
    made = plane(OTHER)
    async with stack(tmp_path, plane=made, engine=FakeEngine(kind="llamacpp")) as world:
        given = await give(world, 500)
        assert (given["session"], given["delegation"]) == ("s1/c", "delegation-1")
        status, _, _ = await world.post(chat(max_tokens=4), x_comptroller_delegation=given["token"])
        await world.quiet()
    assert status == 200
    spent = {key: balance.spent for key, balance in made.ledger.balances.items()}
    assert spent.keys() == {"run/s1/c", "other/s1"}
    assert (spent["run/s1/c"] > 0, spent["other/s1"]) == (True, 1)
    (event,) = made.events.values()
    assert event.session == "s1/c"


@in_loop
async def test_a_child_is_refused_when_its_part_is_used_up(tmp_path: Path) -> None:
    engine = FakeEngine(kind="llamacpp")
    async with stack(tmp_path, plane=plane(), engine=engine) as world:
        given = await give(world, 40)
        token = {"x_comptroller_delegation": given["token"]}
        statuses = [(await world.post(chat(max_tokens=25), **token))[0] for _ in range(3)]
        parent, _, _ = await world.post(chat(max_tokens=25), x_comptroller_session="s1")
    assert (statuses[0], statuses[-1], parent) == (200, 402, 200)


@in_loop
async def test_a_token_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        given = await give(world, 40)
        for token in ("AAAA", given["token"][:-3] + "xyz", "x"):
            status, _, body = await world.post(chat(), x_comptroller_delegation=token)
            assert (status, json.loads(body)["error"]["code"]) == (403, "bad_delegation")
        status, _, _ = await world.post(chat(), x_comptroller_delegation="not a token!")
        assert status == 400


@in_loop
async def test_a_token_for_another_agent_is_refused(tmp_path: Path) -> None:
    made = plane()
    made.change_policy(agents=[*made.policy.agents, _second()])
    async with stack(tmp_path, plane=made) as world:
        wish = {"child_session": "s2", "child_agent": "agent-2", "amounts": {"run": 10}}
        _, _, body = await world.post(wish, path=PATH, x_comptroller_session="s1")
        token = json.loads(body)["token"]
        status, _, refused = await world.post(chat(), x_comptroller_delegation=token)
    assert (status, "another agent" in refused.decode()) == (403, True)


def _second() -> Any:
    return replace(agent(), id="agent-2", slug="second", keys=[])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"child_session": 5}', 400),
        (b'{"child_session": "c", "bribe": 1}', 400),
        (b'{"child_session": "c", "amounts": {"run": null}}', 400),
    ],
)
def test_a_bad_wish_is_told(tmp_path: Path, body: bytes, status: int) -> None:
    @in_loop
    async def run() -> None:
        async with stack(tmp_path, plane=plane()) as world:
            got, _, answer = await world.post(body, path=PATH)
            assert (got, json.loads(answer)["error"]["code"]) == (status, "invalid_json")

    run()


@in_loop
async def test_what_the_control_plane_says_is_passed_on(tmp_path: Path) -> None:
    async with stack(tmp_path, plane=plane()) as world:
        status, _, body = await world.post({"delegation": "x"}, path=f"{PATH}/end")
        assert (status, json.loads(body)["error"]["message"]) == (404, "no such delegation")
        world.plane.up = False
        status, headers, _ = await world.post({"delegation": "x"}, path=f"{PATH}/end")
        assert (status, headers["retry-after"]) == (503, "2")
        status, _, _ = await world.post({"delegation": "x"}, path=PATH, authorization="Bearer no")
        assert status == 401
