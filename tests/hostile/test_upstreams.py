"""Whatever a serving node does: a clean end or a clear error, a charge, and the next call."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.hostile.cases import upstreams
from tests.hostile.cases.upstreams import Misdeed
from tests.hostile.suffering import suffering, trouble_of

Suffer = Callable[[Misdeed], str]


@pytest.fixture(scope="module")
def suffer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suffer]:
    """One sidecar for all misdeeds: what one of them breaks, the next ones find broken."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = suffering(tmp_path_factory.mktemp("suffering"))
        world = runner.run(serving.__aenter__())
        yield lambda misdeed: runner.run(trouble_of(misdeed, world))
        runner.run(serving.__aexit__(None, None, None))


@pytest.mark.parametrize("misdeed", upstreams.CASES, ids=lambda misdeed: misdeed.name)
def test_a_misdeed_is_survived_and_charged(suffer: Suffer, misdeed: Misdeed) -> None:
    assert suffer(misdeed) == ""


def test_each_misdeed_has_a_name_and_a_reason() -> None:
    assert len({misdeed.name for misdeed in upstreams.CASES}) == len(upstreams.CASES)
    assert all(len(misdeed.why) > 10 for misdeed in upstreams.CASES)
