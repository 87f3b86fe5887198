"""The real LiteLLM proxy, set up by the lines of docs/receivers.md, tells a whole web process."""

import json
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from budgets.models import UsageEvent
from tests.collectors.engines.places import python_of
from tests.collectors.engines.server import free_port, running, wait
from tests.enforcement.stack import Site
from tests.receivers.test_litellm_client import model_url

__all__ = ["model_url"]

DOCS = Path(__file__).parents[2] / "docs" / "receivers.md"
MASTER = "sk-of-the-proxy-0123456789abcdef"
PATIENCE_S = 60
LOCAL = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",
}
Post = Callable[..., bytes]


def documented_settings(endpoint: str, key: str) -> dict[str, Any]:
    """The YAML of the page, with an address and a token that exist."""
    (lines,) = re.findall(r"```yaml\n(litellm_settings:.*?)```", DOCS.read_text(), re.DOTALL)
    lines = lines.replace("https://comptroller.example/api/v1/usage/litellm", endpoint)
    settings: dict[str, Any] = yaml.safe_load(lines.replace("cmp_api_…", key))
    assert settings["callback_settings"]["comptroller"]["endpoint"] == endpoint
    return settings


@pytest.fixture
def post(url: str, key: str, model_url: str) -> Iterator[Post]:
    """Sends a call to a proxy that tells of it."""
    settings = documented_settings(f"{url}/api/v1/usage/litellm", key)
    model = {"model": "openai/fast", "api_base": f"{model_url}/v1", "api_key": "none"}
    bridged = model | {
        "model": "hosted_vllm/fast"
    }  # asked in Anthropic's dialect, asks in OpenAI's
    settings["model_list"] = [
        {"model_name": "small", "litellm_params": model},
        {"model_name": "bridged", "litellm_params": bridged},
    ]
    settings["general_settings"] = {"master_key": MASTER}
    python, port = python_of("litellm"), free_port()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
        command: list[str | Path] = ["env", "-u", "DATABASE_URL"]  # ours is none of its
        command += [python.parent / "litellm", "--config", folder / "config.yaml"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        with running(command, folder, "litellm", **LOCAL) as process:
            proxy = f"http://127.0.0.1:{port}"
            wait(f"{proxy}/health/readiness", process, folder / "litellm.log")

            def send(path: str, body: dict[str, Any], **headers: str) -> bytes:
                fields = {"content-type": "application/json", "authorization": f"Bearer {MASTER}"}
                fields |= {name.replace("_", "-"): value for name, value in headers.items()}
                request = urllib.request.Request(  # noqa: S310
                    f"{proxy}{path}", json.dumps({"model": "small"} | body).encode(), fields
                )
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    return bytes(answer.read())

            yield send


def told(count: int) -> list[UsageEvent]:
    """The events once there are so many, and none comes any more."""
    deadline = time.monotonic() + PATIENCE_S
    while UsageEvent.objects.count() < count and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)  # for another flush: nothing is told twice
    return list(UsageEvent.objects.order_by("started_at"))


def asked(tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Name a river."}],
        "max_tokens": tokens,
    } | fields


@pytest.mark.slow  # LiteLLM's proxy is a large install, outside of the lock
def test_the_proxy_tells_of_each_call_once(site: Site, post: Post) -> None:
    """By header, metadata, tag and user; whole, streamed, in another dialect, refused."""
    seen = [
        used(post("/v1/chat/completions", asked(3), x_agent_id="a1")),
        used(post("/v1/chat/completions", asked(4, metadata={"agent_id": "a1"}))),
        used(post("/v1/chat/completions", asked(6, user="a1"))),
        used(post("/v1/messages", asked(8, model="bridged"), x_agent_id="a1")),
    ]
    post("/v1/chat/completions", asked(5, stream=True, metadata={"tags": ["agent:a1"]}))
    post("/v1/messages", asked(9, model="bridged", stream=True), x_agent_id="a1")
    with pytest.raises(urllib.error.HTTPError):
        post("/v1/chat/completions", asked(10, model="nobody"), x_agent_id="a1")

    events = told(6)

    assert [event.output_tokens for event in events] == [*seen, 5, 9]
    assert [event.stream for event in events] == [False] * 4 + [True] * 2
    assert [event.endpoint for event in events].count("anthropic_messages") == 2
    assert {(event.agent_id, event.model, event.source) for event in events} == {
        (site.agent.id, "fast", "litellm")
    }


def used(answer: bytes) -> int:
    """Output tokens as the caller saw them."""
    usage = json.loads(answer)["usage"]
    return int(usage.get("completion_tokens") or usage["output_tokens"])
