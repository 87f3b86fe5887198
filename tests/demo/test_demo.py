"""The demo for real: model, agents, engine, ledger, and an exit code."""

from collections.abc import Iterator

import pytest

from tests.launcher.installation import Installation

pytestmark = pytest.mark.model


@pytest.fixture
def installation() -> Iterator[Installation]:
    pytest.importorskip("xllamacpp", reason="the extra 'demo' is not installed")
    made = Installation()
    yield made
    made.close()


def test_every_figure_agrees(installation: Installation) -> None:
    answer = installation.run("demo", "--check", "--port", installation.port)

    assert answer.returncode == 0, answer.stderr
    assert "Every figure agrees" in answer.stdout
    assert "$0.004000000  $0.004000000  $0.000000000" in answer.stdout
    assert installation.leftovers() == []


def test_the_status_of_a_demo_shows_all_its_parts_ready(installation: Installation) -> None:
    installation.up(command="demo")

    parts = installation.parts()

    assert parts["model"]["state"] == "ready"
    assert {part["state"] for part in parts.values()} == {"ready"}
    assert installation.run("status").returncode == 0
