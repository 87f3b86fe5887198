"""`comptroller sidecar doctor` in front of nodes that stop, and of one that does not."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import engine as fast_engine
from enforcement.rules.margins import Stop
from enforcement.rules.policy import HoldMode, Unit
from enforcement.sidecar.config import Config, parse_upstream
from enforcement.sidecar.doctor import Finding, State, check_spool, examine
from enforcement.sidecar.engines import Upstream
from enforcement.sidecar.margins import NAME, read_stops, write_stops
from enforcement.sidecar.processtime import cpu_ms, listener_of
from enforcement.sidecar.stopmeasure import measure_stop
from enforcement.sidecar.tls import ClientTls
from tests.collectors.modelserver import model_server
from tests.sidecar.certificates import Authority
from tests.sidecar.engine import FakeEngine, end_chunks, send_raw, start_stream
from tests.sidecar.plane import TOKEN, Plane
from tests.sidecar.stack import PRICE, agent, budget, chat, events_of, in_loop, stack
from tests.sidecar.test_tls import behind_tls, config_for

ROOT = Path(__file__).resolve().parents[2]
STOP = Stop(
    node="node",
    engine="vllm",
    version="0.32.0",
    streams=6,
    rate_tokens_per_s=100,
    stop_ms=100,
    tokens_after=1,
    chunk_tokens=1,
    source="counters",
    measured_at_ms=0,
)


def config(spool: Path, url: str, *, control: str = "http://127.0.0.1:9") -> Config:
    target = parse_upstream(f"node={url}", index=0, environ={})
    return Config(upstreams=(target,), control_url=control, token=TOKEN, spool_dir=spool)


def by_check(found: list[Finding]) -> dict[str, tuple[State, str]]:
    return {finding.check: (finding.state, finding.detail) for finding in found}


# ---------------------------------------------------------------------------- stops


async def measured(spool: Path, url: str, *, rounds: int) -> Stop:
    node = config(spool, url)
    upstream = Upstream(node.upstreams[0], node)
    try:
        await upstream.probe()
        return await measure_stop(upstream, node, rounds=rounds)
    finally:
        upstream.pool.close()


def test_an_engine_that_goes_on_for_three_tokens_is_measured(tmp_path: Path) -> None:
    with fast_engine("--model", "fast", "--rate", "100", "--abort-tokens", "3") as url:

        @in_loop
        async def test() -> None:
            stop = await measured(tmp_path, url, rounds=2)

            assert (stop.node, stop.engine, stop.streams) == ("node", "llama.cpp", 3)
            assert stop.stop_ms is not None
            assert stop.stop_ms < 2_000
            assert stop.tokens_after is not None
            assert 2 * 3 <= stop.tokens_after <= 2 * 8  # of two streams together
            assert 40 <= stop.rate_tokens_per_s <= 200

        test()


class Endless(FakeEngine):
    """Says that it is vLLM, and goes on whether or not anybody listens."""

    busy = 0

    async def _answer(self, path, head, body, reader, writer) -> None:
        if path == "/metrics":
            page = f"vllm:num_requests_running {self.busy}\nvllm:generation_tokens_total 1e3\n"
            send_raw(writer, page.encode(), b"text/plain")
        else:
            await super()._answer(path, head, body, reader, writer)

    async def generate(self, body, writer) -> None:
        self.busy += body["max_tokens"] > 4
        start_stream(writer)
        for n in range(1, 20):
            self.send(writer, self.event({"content": "word "}, n, body))
        if body["max_tokens"] <= 4:
            end_chunks(writer)


@in_loop
async def test_an_engine_that_does_not_stop_is_told_apart(tmp_path: Path) -> None:
    engine = Endless(kind="vllm", script=Endless.generate)
    async with engine.running():
        found = by_check(await examine(config(tmp_path, engine.url), measure=True))

    assert found["stop"][0] is State.FAILED
    assert "did not stop" in found["stop"][1]
    (stop,) = read_stops(tmp_path)
    assert (stop.stop_ms, stop.margin_tokens) == (None, None)


class Counting(FakeEngine):
    """Tells on `/metrics` what it runs and made, as vLLM does."""

    busy = 0

    async def _answer(self, path, head, body, reader, writer) -> None:
        if path == "/metrics":
            made = f"vllm:generation_tokens_total {self.output_tokens}\n"
            page = f"vllm:num_requests_running {self.busy}\n{made}"
            send_raw(writer, page.encode(), b"text/plain")
            return
        self.busy += 1
        try:
            await super()._answer(path, head, body, reader, writer)
        finally:
            self.busy -= 1


@in_loop
async def test_a_node_behind_tls_is_examined_and_its_stop_measured(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = Counting(kind="vllm", delay=0.005), Plane(agents=[agent()])
    tls = ClientTls(ca_file=authority.ca_file, server_name="node.internal")
    async with plane.running(), behind_tls(engine, authority.server("node.internal")) as url:
        found = by_check(await examine(config_for(tmp_path, url, tls, plane), measure=True))

    assert found["node"] == (State.OK, f"vllm 0.32.0, 1 models, at {url}")
    assert found["stream usage"] == (State.OK, "told: 7 + 4 tokens")
    (stop,) = read_stops(tmp_path / "spool")
    assert (stop.streams, stop.source) == (6, "counters")
    assert stop.stop_ms is not None
    assert stop.tokens_after is not None
    assert stop.tokens_after < 20  # of two streams together: it heard that they were closed


@in_loop
async def test_a_node_whose_certificate_nobody_vouches_for_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    engine, plane = FakeEngine(kind="vllm"), Plane(agents=[agent()])
    async with plane.running(), behind_tls(engine, authority.server("node.internal")) as url:
        found = by_check(await examine(config_for(tmp_path, url, ClientTls(), plane), measure=True))

    assert found["node"][0] is State.FAILED
    assert "certificate" in found["node"][1]
    assert engine.heads == []


@pytest.mark.model
def test_llama_cpp_frees_its_slot_in_time(tmp_path: Path) -> None:
    """The goal: at most 0.6 s from the cut to a free slot."""
    pytest.importorskip("xllamacpp", reason="the extra 'demo' is not installed")
    with model_server() as url:

        async def test() -> None:
            stop = await measured(tmp_path, url, rounds=4)

            assert stop.engine == "llama.cpp"
            assert stop.stop_ms is not None
            assert stop.stop_ms <= 600
            assert stop.tokens_after is not None
            assert stop.tokens_after <= 4  # of two streams together

        in_loop(test, within=200)()


def test_the_processor_time_of_a_listener_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listener_of(server.getsockname()[1]) == os.getpid()
    before = cpu_ms(os.getpid())
    sum(range(5_000_000))
    assert cpu_ms(os.getpid()) > before


# ---------------------------------------------------------------------------- what is kept


def test_stops_are_kept_by_node(tmp_path: Path) -> None:
    other = Stop(**{name: getattr(STOP, name) for name in STOP.__struct_fields__} | {"node": "b"})
    write_stops(tmp_path, [STOP, other])
    newer = Stop(**{name: getattr(STOP, name) for name in STOP.__struct_fields__} | {"stop_ms": 5})

    path = write_stops(tmp_path, [newer])

    assert read_stops(tmp_path) == (other, newer)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [b"", b"{}", b'[{"node": "a"}]', b"[1", b"\xff"])
def test_a_broken_file_is_no_measurement(tmp_path: Path, text: bytes) -> None:
    (tmp_path / NAME).write_bytes(text)

    assert read_stops(tmp_path) == ()


@in_loop
async def test_unmeasured_a_metered_budget_holds_strictly(tmp_path: Path) -> None:
    cap = budget(300, Unit.TOKENS, hold_mode=HoldMode.METERED)
    plane = Plane(agents=[agent()], prices=[PRICE], budgets=[cap])
    engine = FakeEngine(kind="vllm")
    async with stack(tmp_path, engine=engine, plane=plane, metered_margin_tokens=None) as world:
        _, _, body = await world.post(chat(max_tokens=900, stream=True))
        await world.quiet()

    assert engine.requests[0]["max_tokens"] == 300 - 7  # the whole worst case was held
    assert events_of(body)[-1]["comptroller"]["outcome"] == "clamped"


@in_loop
async def test_measured_it_holds_slice_by_slice(tmp_path: Path) -> None:
    cap = budget(300, Unit.TOKENS, hold_mode=HoldMode.METERED)
    plane = Plane(agents=[agent()], prices=[PRICE], budgets=[cap])
    engine = FakeEngine(kind="vllm", delay=0.001)
    settings = {"metered_margin_tokens": None, "stops": (STOP,)}
    async with stack(tmp_path, engine=engine, plane=plane, **settings) as world:
        _, _, body = await world.post(chat(max_tokens=900, stream=True))
        await world.quiet()

    assert engine.requests[0]["max_tokens"] == 900
    assert events_of(body)[-1]["comptroller"]["outcome"] == "cut"
    assert 7 + engine.output_tokens <= plane.balance("budget-tokens").spent <= 300


# ---------------------------------------------------------------------------- the other checks


@in_loop
async def test_all_is_well(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    engine = FakeEngine(kind="vllm")
    async with plane.running(), engine.running():
        found = by_check(
            await examine(config(tmp_path, engine.url, control=plane.url), measure=False)
        )

    assert found["clock"][0] is State.OK
    assert found["spool"][0] in (State.OK, State.WARNING)  # a busy disk is slow
    assert found["spool volume"][0] is State.WARNING  # below /tmp
    assert found["control plane"][0] is State.OK
    assert found["node"] == (State.OK, f"vllm 0.32.0, 1 models, at {engine.url}")
    assert found["context window"] == (State.OK, "1000 tokens")
    assert found["prompt counts"] == (State.OK, "exact, before the call (7 tokens for a short one)")
    assert found["stream usage"] == (State.OK, "told: 7 + 4 tokens")


@in_loop
async def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    engine = FakeEngine()
    async with plane.running(), engine.running():
        wrong = config(tmp_path, engine.url, control=plane.url)
        object.__setattr__(wrong, "token", "another")
        found = by_check(await examine(wrong, measure=False))

    assert found["control plane"][0] is State.FAILED
    assert found["context window"][0] is State.FAILED
    assert found["prompt counts"][0] is State.WARNING


@in_loop
async def test_a_node_that_is_not_there_is_told(tmp_path: Path) -> None:
    found = by_check(await examine(config(tmp_path, "http://127.0.0.1:9"), measure=True))

    assert found["control plane"][0] is State.FAILED
    assert found["node"][0] is State.FAILED
    assert "stop" not in found


def test_a_spool_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = check_spool(tmp_path / "file" / "spool")

    assert finding.state is State.FAILED
    assert finding.detail == "cannot be written: Not a directory"


@in_loop
async def test_the_command_prints_and_tells_by_its_exit_code(tmp_path: Path) -> None:
    plane = Plane(agents=[agent()])
    engine = FakeEngine(kind="vllm")
    async with plane.running(), engine.running():
        command = [sys.executable, "-m", "controlplane.cli.main", "sidecar", "doctor"]
        command += ["--control-url", plane.url, "--token", TOKEN, "--spool-dir", str(tmp_path)]
        command += ["--no-measure", "--format", "json", "--upstream"]
        well, ill = [
            await asyncio.to_thread(
                subprocess.run, [*command, url], capture_output=True, text=True, cwd=ROOT
            )
            for url in (engine.url, "http://127.0.0.1:9")
        ]

    assert (well.returncode, ill.returncode) == (0, 1)
    assert {row["state"] for row in json.loads(well.stdout)} <= {"ok", "warning"}
    assert "failed" in {row["state"] for row in json.loads(ill.stdout)}
