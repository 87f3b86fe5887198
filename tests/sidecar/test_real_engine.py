"""In front of the real model server: our meter agrees with the engine's own counters."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from controlplane.demo.engine import Counters, read_counters
from enforcement.rules.policy import HoldMode, PricePolicy, Rates, Unit
from enforcement.rules.wire import Outcome
from enforcement.sidecar.engines import ABORT_TOKENS, Engine
from tests.collectors.modelserver import model_server
from tests.sidecar.engine import FakeEngine
from tests.sidecar.plane import Plane
from tests.sidecar.stack import Stack, agent, budget, events_of, in_loop, stack

pytestmark = pytest.mark.model

slowly = partial(in_loop, within=200)  # a busy machine makes two tokens a second
UNSEEN = ABORT_TOKENS[Engine.LLAMA_CPP]


class RealEngine(FakeEngine):
    """Runs elsewhere: only its address is wanted."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeEngine]:
        yield self


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="the extra 'demo' is not installed")
    with model_server() as url:
        yield url


def chat(world: Stack, **fields: object) -> dict[str, object]:
    (node,) = world.service.desk.router.upstreams
    messages = [{"role": "user", "content": "Tell a long story."}]
    return {"model": node.models[0], "messages": messages, "ignore_eos": True} | fields


async def run(
    tmp_path: Path, url: str, plane: Plane, *bodies: dict[str, object]
) -> tuple[list[tuple[int, bytes]], Counters]:
    """Make calls at once; their answers, and what the engine has counted since."""
    before = read_counters(url)
    engine = RealEngine(url)
    async with stack(tmp_path, engine=engine, plane=plane, context_window=None) as world:
        calls = [world.post(chat(world, **body)) for body in bodies]
        answers = [(status, body) for status, _, body in await asyncio.gather(*calls)]
        await world.quiet()
    await asyncio.sleep(0.5)
    return answers, read_counters(url).since(before)


def priced(limit: int, **fields: object) -> Plane:
    rates = Rates(input=1_000_000, cached_input=1_000_000, output=4_000_000)
    price = PricePolicy(id="p", model="", match="prefix", rates=rates)
    return Plane(agents=[agent()], budgets=[budget(limit, **fields)], prices=[price])  # type: ignore[arg-type]


def test_whole_answers_and_streams_agree_to_the_token(tmp_path: Path, model: str) -> None:
    @slowly
    async def test() -> None:
        plane = priced(10**9)
        plain = {"max_tokens": 12}
        answers, made = await run(tmp_path, model, plane, plain, plain | {"stream": True})
        assert [status for status, _ in answers] == [200, 200]
        assert plane.tokens == (made.input_tokens, made.output_tokens) == (made.input_tokens, 24)
        assert plane.balance("budget-usd").spent == made.input_tokens + 4 * 24
        assert not any(event.estimated for event in plane.events.values())

    test()


def test_a_strict_cap_clamps_and_holds_on_the_real_model(tmp_path: Path, model: str) -> None:
    @slowly
    async def test() -> None:
        plane = priced(180)
        bodies = [{"max_tokens": 20, "stream": True}] * 4
        answers, made = await run(tmp_path, model, plane, *bodies)
        truth = made.input_tokens + 4 * made.output_tokens
        assert truth <= 180
        assert plane.balance("budget-usd").spent == truth
        assert {status for status, _ in answers} <= {200, 402, 429}

    test()


def test_a_metered_cap_cuts_on_the_real_model(tmp_path: Path, model: str) -> None:
    @slowly
    async def test() -> None:
        plane = priced(170, unit=Unit.TOKENS, hold_mode=HoldMode.METERED)
        body = {"max_tokens": 900, "stream": True}
        ((status, answer),), made = await run(tmp_path, model, plane, body)
        assert status == 200
        assert events_of(answer)[-1]["comptroller"]["outcome"] == "cut"
        (event,) = plane.events.values()
        assert event.outcome is Outcome.CUT
        truth = made.input_tokens + made.output_tokens
        balance = plane.balance("budget-tokens")
        assert truth <= balance.spent <= min(truth + UNSEEN, 170)

    test()
