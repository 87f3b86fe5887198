"""The real LiteLLM: its generic API callback tells a whole web process of calls to a model."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from budgets.models import UsageEvent
from tests.clients.places import litellm_python
from tests.clients.programs import bare_environment
from tests.enforcement.stack import Site

ROOT = Path(__file__).parents[2]
CALLS = 6
PATIENCE_S = 60


@pytest.fixture
def model_url() -> Iterator[str]:
    command = (sys.executable, "-m", "tests.fakes.engine", "--model", "fast")
    with running(command) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


@contextmanager
def running(command: tuple[str | Path, ...]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=bare_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.slow  # LiteLLM is a large install, outside of the lock
@pytest.mark.parametrize("log_format", ["json_array", "ndjson", "single"])
def test_litellm_tells_of_what_its_callers_used(
    site: Site, url: str, key: str, model_url: str, log_format: str
) -> None:
    asked = {
        "model_url": model_url,
        "endpoint": f"{url}/api/v1/usage/litellm",
        "key": key,
        "log_format": log_format,
        "calls": CALLS,
    }
    with running((litellm_python(), "-m", "tests.receivers.litellm_driver")) as litellm:
        assert litellm.stdin is not None
        assert litellm.stdout is not None
        litellm.stdin.write(json.dumps(asked) + "\n")
        litellm.stdin.flush()
        seen = [tuple(used) for used in json.loads(litellm.stdout.readline())]
        deadline = time.monotonic() + PATIENCE_S
        while UsageEvent.objects.count() < CALLS and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(2)  # for another flush: nothing is told twice
    events = UsageEvent.objects.order_by("started_at")
    assert [(event.input_tokens, event.output_tokens) for event in events] == seen
    assert [event.output_tokens for event in events if event.stream] == [6, 8, 10]
    assert [event.stream for event in events] == [False, True] * (CALLS // 2)
    assert {(event.agent_id, event.user, event.model, event.source) for event in events} == {
        (site.agent.id, "u-1", "fast", "litellm")
    }
