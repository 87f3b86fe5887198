"""The stream of signals: one reader for all tabs, a signal for each change, none without."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient, Client

from controlplane.dashboard import live
from controlplane.identity.enums import Role
from tests.budgets.world import World, make_budget, make_world
from tests.enforcement.dashboard.test_agent_pages import call_now, refuse_now
from tests.visitors import visitor

PATIENCE_S = 5


@pytest.fixture
def world(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(live, "POLL_S", 0.05)
    monkeypatch.setattr(live, "BEAT_S", 0.4)
    return make_world()


def listen(organization_id: UUID, act: Callable[[], Any]) -> list[bytes]:
    """What a tab hears until the second message after `act`, which runs once it listens."""

    async def hear() -> list[bytes]:
        stream = live.signals(organization_id)
        heard = [await anext(stream), await anext(stream)]
        while live.hub.join(organization_id).marker is None:
            live.hub.leave(organization_id)
            await asyncio.sleep(0.02)
        live.hub.leave(organization_id)
        await sync_to_async(act)()
        heard += [await _next(stream), await _next(stream)]
        await stream.aclose()  # type: ignore[attr-defined]
        return heard

    return asyncio.run(hear())


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    coming: Awaitable[bytes] = anext(stream)
    return await asyncio.wait_for(coming, PATIENCE_S)


@pytest.mark.parametrize(
    "act",
    [
        lambda world: call_now(world, world.agent),
        lambda world: refuse_now(world, world.agent),
        make_budget,
    ],
    ids=["a call", "a refusal", "a new budget"],
)
def test_a_change_is_one_signal(world: World, act: Callable[[World], Any]) -> None:
    heard = listen(world.id, lambda: act(world))
    assert heard == [
        b"retry: 2000\n\n",
        b"event: changed\nid: 0\ndata: changed\n\n",  # what happened before the tab listened
        b"event: changed\nid: 1\ndata: changed\n\n",
        b": beat\n\n",
    ]


def test_changes_of_others_are_no_signal(world: World) -> None:
    other = make_world("other")
    heard = listen(world.id, lambda: call_now(other, other.agent))
    assert heard[2:] == [b": beat\n\n", b": beat\n\n"]


def test_the_reader_ends_with_the_last_tab(world: World) -> None:
    async def come_and_go() -> list[int]:
        first, second = live.signals(world.id), live.signals(world.id)
        await anext(first)
        await anext(second)
        counts = [live.hub.streams]
        await first.aclose()  # type: ignore[attr-defined]
        counts.append(live.hub.streams)
        await second.aclose()  # type: ignore[attr-defined]
        return [*counts, live.hub.streams, int(live.hub._reader is not None)]

    assert asyncio.run(come_and_go()) == [2, 1, 0, 0]


def test_the_stream_is_for_members(world: World) -> None:
    async def status(client: AsyncClient) -> int:
        return (await client.get("/live/")).status_code

    assert asyncio.run(status(AsyncClient())) == 401


def test_there_is_a_limit_to_tabs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAMS_MAX", 0)
    member: Client = visitor(world.organization, Role.VIEWER)
    response = member.get("/live/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
