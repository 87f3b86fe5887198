"""A sidecar in a process of its own under attack: what other tenants feel, and what it holds."""

import asyncio
import os
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import ROOT, engine, median, percentile
from enforcement.rules.policy import AgentPolicy, Unit
from tests.hostile.attackers import ATTACKS, ENEMY
from tests.sidecar.certificates import Authority
from tests.sidecar.plane import TOKEN, Plane, key_policy
from tests.sidecar.stack import KEY, agent, budget

RATE = 50  # calls of the other tenant in a second
MOST_MB = 400
BEHIND_S = 4.0  # looked at behind an attack
MOST_BEHIND_MS = 50.0  # where thousands of connections end in one moment
_STANDING = 20  # connections that the other tenant has, where they speak TLS
_RESERVE = 500  # descriptors beside an attack's own


_CORES = sorted(os.sched_getaffinity(0))
_ATTACKERS = set(_CORES[-1:])


def leave_a_core_to_attackers() -> None:
    """Let this process, and all it starts, run beside the attackers' core, if there are two."""
    os.sched_setaffinity(0, set(_CORES[:-1]) or _ATTACKERS)


class Figures(NamedTuple):
    """What the other tenant felt, and the sidecar's memory."""

    calls: int
    failed: int
    p50_ms: float
    p99_ms: float
    resident_mb: float


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Guarded(NamedTuple):
    """A sidecar that can be attacked. `trust`: it speaks TLS, and who vouches for it."""

    port: int
    pid: int
    trust: ssl.SSLContext | None
    standing: list[Pair]  # connections of the other tenant that wait for its next call

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def enough_descriptors(wanted: int) -> bool:
    """Raise this process's limit, which its children inherit; whether it is enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + _RESERVE <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + _RESERVE, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= wanted + _RESERVE


@asynccontextmanager
async def attacked(spool_dir: Path, *, tls: bool = False) -> AsyncIterator[Guarded]:
    """A control plane, a fast serving node, a sidecar; two tenants, one of them an enemy."""
    plane = Plane(
        agents=[agent(), AgentPolicy(id="enemy", slug="enemy", keys=[key_policy(ENEMY)])],
        budgets=[budget(10**9, Unit.TOKENS)],
    )
    authority = Authority(spool_dir / "tls") if tls else None
    trust = ssl.create_default_context(cafile=authority.ca_file) if authority else None
    async with plane.running(), _node_and_sidecar(spool_dir, plane.url, authority) as process:
        port = await asyncio.to_thread(_port_of, process)
        guarded = Guarded(port, process.pid, trust, [])
        await _served(guarded)
        if tls:
            await asyncio.gather(*(_call(guarded) for _ in range(_STANDING)))
        yield guarded
        for _, writer in guarded.standing:
            writer.transport.abort()


@asynccontextmanager
async def _node_and_sidecar(
    spool_dir: Path, control: str, authority: Authority | None
) -> AsyncIterator[subprocess.Popen[str]]:
    with engine() as upstream:
        process = _sidecar(spool_dir, upstream, control, authority)
        try:
            yield process
        finally:
            process.terminate()  # in a thread: the control plane that it takes leave of is ours
            await asyncio.to_thread(process.communicate, timeout=30)


def _sidecar(
    spool_dir: Path, upstream: str, control: str, authority: Authority | None
) -> subprocess.Popen[str]:
    command = [
        Path(sys.executable).parent / "comptroller",
        "sidecar",
        "run",
        "--listen",
        "127.0.0.1:0",
    ]
    places = ["--upstream", f"node={upstream}", "--control-url", control]
    places += ["--spool-dir", str(spool_dir)]
    if authority is not None:
        certificate, key = authority.sign("127.0.0.1")
        settings = spool_dir / "tls" / "sidecar.toml"
        settings.write_text(f'[tls]\ncert_file = "{certificate}"\nkey_file = "{key}"\n')
        places += ["--config", str(settings)]
    return subprocess.Popen(
        [*command, *places, "--shutdown-timeout", "1"],
        env={**os.environ, "COMPTROLLER_SIDECAR_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on" in line:
            return int(line.split("listening on ")[1].split(",")[0].rpartition(":")[2])
    raise RuntimeError("the sidecar does not start")


async def _served(guarded: Guarded) -> None:
    async with asyncio.timeout(20):
        while await _call(guarded) is None:
            await asyncio.sleep(0.1)


async def _call(guarded: Guarded) -> float | None:
    """One small call of the other tenant: seconds, None if it failed.

    A plain connection is a new one; one with TLS is used again, as clients do.
    """
    body = b'{"model":"fast","messages":[{"role":"user","content":"hello"}],"max_tokens":1}'
    began = time.perf_counter()
    try:
        async with asyncio.timeout(10):
            reader, writer = await _connection(guarded)
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: node\r\n%b"
                b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\n"
                b"Content-Length: %d\r\n\r\n%b"
                % (
                    b"" if guarded.trust else b"Connection: close\r\n",
                    KEY.encode(),
                    len(body),
                    body,
                )
            )
            answer = await _answer(reader)
    except (OSError, EOFError, TimeoutError):
        return None
    took = time.perf_counter() - began
    if guarded.trust:
        guarded.standing.append((reader, writer))
    else:
        writer.close()
    return took if b" 200 " in answer[:16] else None


async def _connection(guarded: Guarded) -> Pair:
    while guarded.standing:
        reader, writer = guarded.standing.pop()
        if not reader.at_eof() and not writer.is_closing():  # the sidecar ends what idles long
            return reader, writer
    return await asyncio.open_connection("127.0.0.1", guarded.port, ssl=guarded.trust)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return head


async def felt(guarded: Guarded, seconds: float) -> Figures:
    """Call at a steady rate, whether or not earlier calls were answered."""
    calls: list[asyncio.Task[float | None]] = []
    most_mb = 0.0
    began = time.perf_counter()
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
        calls.append(asyncio.create_task(_call(guarded)))
        most_mb = max(most_mb, guarded.resident_mb())
    answers = await asyncio.gather(*calls)
    good = [seconds * 1_000 for seconds in answers if seconds is not None] or [10_000.0]
    failed = answers.count(None)
    return Figures(len(answers), failed, percentile(good, 0.5), percentile(good, 0.99), most_mb)


async def under(
    name: str, guarded: Guarded, *, size: int, seconds: float, warm_s: float
) -> Figures:
    """What is felt while an attack runs from a core of its own: its machine is another."""
    attack = [name, str(guarded.port), str(seconds + warm_s + 1), str(size)]
    attacker = await asyncio.create_subprocess_exec(
        "nice", "-n", "19", sys.executable, "-m", "tests.hostile.attackers", *attack, cwd=ROOT
    )
    os.sched_setaffinity(attacker.pid, _ATTACKERS)
    try:
        await asyncio.sleep(warm_s)
        return await felt(guarded, seconds)
    finally:
        if attacker.returncode is None:
            attacker.terminate()
        await attacker.wait()


class Verdict(NamedTuple):
    """Medians over rounds, each with a quiet time before its attack, and one behind it."""

    name: str
    size: int
    quiet_p99_ms: float
    p99_ms: float
    behind_p99_ms: float
    failed: int
    resident_mb: float

    @property
    def holds(self) -> bool:
        served = self.failed == 0 and self.p99_ms <= self.allowed_ms
        return served and self.resident_mb <= MOST_MB and self.behind_p99_ms <= MOST_BEHIND_MS

    @property
    def allowed_ms(self) -> float:
        return 2 * self.quiet_p99_ms


async def judged(name: str, guarded: Guarded, *, rounds: int, seconds: float) -> Verdict:
    """Attack some times, with quiet between, and look at what an attack leaves behind."""
    _, size, warm_s, _ = ATTACKS[name]
    quiet, attacked, behind = [], [], []
    for _ in range(rounds):
        quiet.append(await felt(guarded, seconds))
        attacked.append(await under(name, guarded, size=size, seconds=seconds, warm_s=warm_s))
        behind.append(await felt(guarded, BEHIND_S))
        await asyncio.sleep(1)
    return Verdict(
        name,
        size,
        median([figures.p99_ms for figures in quiet]),
        median([figures.p99_ms for figures in attacked]),
        median([figures.p99_ms for figures in behind]),
        sum(figures.failed for figures in attacked + behind),
        max(figures.resident_mb for figures in attacked + behind),
    )
