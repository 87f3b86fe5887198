"""The whole product in front of an engine that lies, hangs and dies: real sidecar, real ledger.

The truth is the engine's own count. Nothing that was produced may be missing from the ledger, no
call may be charged more than its hold, and no event may be lost or doubled.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from budgets.domain.prices import set_own_price
from budgets.domain.verify import verify
from budgets.models import Balance, Transfer, UsageEvent
from controlplane.identity.domain import issue_agent_key
from enforcement.rules.policy import Rates, Unit
from tests.enforcement.stack import ACTOR, Site, now
from tests.fakes.engine import MISDEEDS
from tests.fakes.test_engine import PROMPT, PROMPT_TOKENS, engine

MODELS = ("fast", *MISDEEDS)
OUTPUT = 40
INPUT_NANOS, OUTPUT_NANOS = 1_000, 4_000  # for each token
HOLD = PROMPT_TOKENS * INPUT_NANOS + OUTPUT * OUTPUT_NANOS
CALLS = 3  # of each model
LIMIT = 10**9
EXACT = {"fast", "one-byte-chunks", "no-usage", "no-done", "shrinking-usage", "late"}
# What the caller sees, and whether anything may be charged for it.
STATUS = {"answers-html": 502, "fails": 502, "hangs": 504}


@pytest.fixture
def liar() -> Iterator[str]:
    with engine("--misbehave") as address:
        yield address


@contextlib.contextmanager
def sidecar(site: Site, url: str, liar: str, tmp_path: Path) -> Iterator[int]:
    """The real thing in a process of its own; yields its port. At its end all lots go home."""
    command = [sys.executable, "-m", "controlplane.cli.main", "sidecar", "run"]
    command += ["--listen", "127.0.0.1:0", "--upstream", f"liar={liar}", "--control-url", url]
    command += ["--spool-dir", str(tmp_path), "--upstream-head-timeout", "1.5"]
    environment = os.environ | {"COMPTROLLER_SIDECAR_TOKEN": site.token}
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stderr=output) as process,
    ):
        port = wait_for_port(log, process)
        try:
            yield port
        finally:
            process.terminate()
        assert process.wait(20) == 0, log.read_text()


def wait_for_port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        _, found, rest = log.read_text().partition("listening on 127.0.0.1:")
        if found and "," in rest:
            port = int(rest.split(",")[0])
            with contextlib.suppress(OSError):
                urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
                return port
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def call(port: int, key: str, model: str) -> int:
    """One streaming call, read to its end, however that comes."""
    body = {"model": model, "messages": PROMPT, "stream": True, "max_tokens": OUTPUT}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as caller:
        caller.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = caller.getresponse()
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            answer.read()
        return answer.status


def wait_for_events(count: int) -> None:
    deadline = time.monotonic() + 30
    while UsageEvent.objects.count() < count:
        assert time.monotonic() < deadline, UsageEvent.objects.count()
        time.sleep(0.1)


def truth(url: str) -> dict[str, Any]:
    with urlopen(f"{url}/truth", timeout=5) as answer:  # noqa: S310 -- our own engine
        models: dict[str, Any] = json.load(answer)["models"]
    return models


@pytest.fixture
def key(site: Site) -> str:
    """The agent's key; its models have prices, and it has a hard cap in dollars."""
    who: dict[str, Any] = {"organization_id": site.organization.pk, "actor": ACTOR, "now": now()}
    rates = Rates(
        input=INPUT_NANOS * 10**6, cached_input=INPUT_NANOS * 10**6, output=OUTPUT_NANOS * 10**6
    )
    for model in MODELS:
        set_own_price(model=model, rates=rates, reason="tests", **who)
    site.budget(LIMIT, unit=Unit.USD)
    return str(issue_agent_key(agent_id=site.agent.pk, name="tests", **who).secret)


def test_nothing_is_lost_or_doubled_whatever_the_engine_does(
    site: Site, url: str, liar: str, key: str, tmp_path: Path
) -> None:
    with sidecar(site, url, liar, tmp_path) as port:
        seen = {model: {call(port, key, model) for _ in range(CALLS)} for model in MODELS}
        wait_for_events(CALLS * len(MODELS))
    made = truth(liar)
    balance = Balance.objects.get(organization=site.organization)

    assert seen == {model: {STATUS.get(model, 200)} for model in MODELS}
    events = list(UsageEvent.objects.all())
    assert Counter(event.model for event in events) == dict.fromkeys(MODELS, CALLS)
    for model in MODELS:
        charged = sum(event.charge_nanos for event in events if event.model == model)
        produced = (
            made[model]["prompt_tokens"] * INPUT_NANOS + made[model]["output_tokens"] * OUTPUT_NANOS
        )
        assert produced <= charged <= CALLS * HOLD, model
        if model in EXACT:
            assert charged == produced, model
    assert sum(event.charge_nanos for event in events if event.model == "fails") == 0

    total = sum(event.charge_nanos for event in events)
    assert balance.spent_amount == total
    assert (balance.held_amount, balance.suspense_amount, balance.overrun_amount) == (0, 0, 0)
    paid = sum(part["amount"] for event in events for part in event.parts)
    assert paid == total
    kinds = Transfer.objects.filter(balance=balance).values_list("kind", "amount")
    sums: Counter[str] = Counter()
    for kind, amount in kinds:
        sums[kind] += amount
    assert sums["settle"] == total
    assert sums["grant"] == sums["settle"] + sums["release"]
    assert verify(organization_id=site.organization.pk).differences == []
