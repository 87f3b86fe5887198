"""Real clients, unchanged, through a real sidecar: every behaviour of every Python client.

The long form, `./run clients`, adds those of npm, LiteLLM, agent programs and a real engine.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.behaviours import BEHAVIOURS, Arena
from tests.clients.programs import PYTHON_CLIENTS, Client
from tests.sidecar.stack import in_loop


@pytest.fixture(scope="module", params=PYTHON_CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    found: Client = request.param
    yield found
    found.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_client_behaves(tmp_path: Path, client: Client, behaviour: str) -> None:
    async def run() -> None:
        assert await BEHAVIOURS[behaviour](client, Arena(tmp_path))

    in_loop(run, within=120)()  # the first call of a client imports all of it
