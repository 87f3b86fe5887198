"""A real web process for tests: uvicorn in a thread, real PostgreSQL, and a hand-driven book."""

# ruff: noqa: S310 -- every address here is our own

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

import msgspec
import uvicorn
from django.db import connection

from budgets.domain.budgets import BudgetSpec, create_budget
from budgets.models import Balance, Budget
from controlplane.audit.domain import Actor
from controlplane.identity.domain import create_agent, create_organization
from controlplane.identity.models import Agent, Organization
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.models import Sidecar
from enforcement.rules.book import Book, Effects
from enforcement.rules.policy import ScopeKind, Unit
from enforcement.rules.wire import (
    Attribution,
    GroupItem,
    SyncAnswer,
    UpstreamInfo,
    Usage,
    UsageAnswer,
    UsageEvent,
    Welcome,
)

ACTOR = Actor.system("tests")
Answer = TypeVar("Answer")


def now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass
class Site:
    """An organization with one agent and one enrolled sidecar."""

    organization: Organization
    agent: Agent
    sidecar: Sidecar
    token: str

    def budget(self, limit: int, name: str = "cap", **more: Any) -> Budget:
        spec: dict[str, Any] = {
            "scope_kind": ScopeKind.AGENT,
            "scope_id": self.agent.id,
            "unit": Unit.TOKENS,
        }
        spec |= more
        return create_budget(
            organization_id=self.organization.id,
            spec=BudgetSpec(name=name, limit_amount=limit, **spec),
            actor=ACTOR,
            now=now(),
        )


def make_site(slug: str = "acme") -> Site:
    organization = create_organization(slug=slug, name=slug, actor=ACTOR, now=now())
    agent = create_agent(
        organization_id=organization.id, slug="a1", name="A1", actor=ACTOR, now=now()
    )
    enrolled = enrol_sidecar(organization_id=organization.id, name="s1", actor=ACTOR, now=now())
    return Site(organization, agent, enrolled.sidecar, enrolled.secret)


@contextlib.contextmanager
def web(**service: Any) -> Iterator[str]:
    """Serve the control plane on a free port; yields its address."""
    from enforcement.leasing.asgi import LeaseApplication
    from enforcement.leasing.service import LeaseService

    application = LeaseApplication(lambda: LeaseService(**service))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, log_level="warning", lifespan="on", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started, "the web process did not start"
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@contextlib.contextmanager
def web_processes(count: int) -> Iterator[list[str]]:
    """Whole web processes of their own, all on the test database; yields their addresses."""
    settings = connection.settings_dict
    place = urlencode({"host": settings["HOST"]})
    database = f"postgresql://{settings['USER']}@/{settings['NAME']}?{place}"
    ports = [free_port() for _ in range(count)]
    command = [sys.executable, "-m", "uvicorn", "controlplane.asgi:application", "--host"]
    command += ["127.0.0.1", "--log-level", "warning", "--port"]
    processes = [
        subprocess.Popen([*command, str(port)], env=os.environ | {"DATABASE_URL": database})
        for port in ports
    ]
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        for address, process in zip(addresses, processes, strict=True):
            wait_until_up(address, process)
        yield addresses
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def wait_until_up(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the web process ended"
        assert time.monotonic() < deadline, "the web process did not start"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/healthz", timeout=5).close()
            return
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HttpError(Exception):
    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('detail')}")
        self.status = status
        self.problem = problem


def post(url: str, token: str, body: bytes, kind: type[Answer]) -> Answer:
    request = urllib.request.Request(url, data=body, method="POST")
    request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return msgspec.json.decode(answer.read(), type=kind)
    except urllib.error.HTTPError as error:
        with error:
            raise HttpError(error.code, json.loads(error.read() or b"{}")) from None


class Peer:
    """The production book behind a plain HTTP client: what a sidecar says, step by step."""

    def __init__(self, url: str, token: str, *, spool: str | None = None, boot: str = "") -> None:
        self.url = f"{url}/sidecar/v1/"
        self.token = token
        self.boot = boot or uuid4().hex
        self.book = Book(organization="", spool=spool or str(uuid4()), name="peer/0")

    def hello(self, upstreams: list[UpstreamInfo] | None = None) -> Welcome:
        hello = self.book.make_hello(
            boot=self.boot, kernel_boot_id="k", clean=False, upstreams=upstreams or [], version="1"
        )
        sent_ns = time.monotonic_ns()
        welcome = post(self.url + "hello", self.token, msgspec.json.encode(hello), Welcome)
        self.book.on_welcome(
            welcome, sent_ns=sent_ns, now_ns=time.monotonic_ns(), kernel_boot_id="k"
        )
        return welcome

    def sync(self, *, lose_answer: bool = False) -> Effects:
        sent_ns = time.monotonic_ns()
        sync = self.book.make_sync(now_ns=sent_ns)
        answer = post(self.url + "sync", self.token, msgspec.json.encode(sync), SyncAnswer)
        self.answer = answer
        if lose_answer:
            self.book.on_sync_failed(sync.header.sequence)
            return Effects()
        effects = self.book.on_answer(
            answer, sync, sent_ns=sent_ns, now_ns=time.monotonic_ns(), now_ms=0
        )
        for leases in effects.granted.values():
            self.book.lots.mark_durable(leases)
        return effects

    def learn(self, site: Site) -> None:
        """Sync until the policy of the moment is known, as a sidecar does within milliseconds."""
        site.organization.refresh_from_db()
        for _ in range(200):
            if self.book.policy_revision >= site.organization.policy_revision:
                self.sync()  # says so
                return
            self.sync()
            time.sleep(0.01)
        raise AssertionError("the policy never arrived")

    def wait_for_news(self) -> None:
        """Until the ledger has a newer policy to tell; the book does not learn it."""
        for _ in range(200):
            self.sync(lose_answer=True)
            if self.answer.policy is not None:
                return
            time.sleep(0.02)
        raise AssertionError("the ledger never had a newer policy")

    def ask(
        self,
        agent: str,
        budget: str,
        *,
        need: int,
        floor: int = 1,
        want: int = 0,
        value: str = "",
        session: str = "",
        key: str = "",
        wait_ms: int = 150,
    ) -> str:
        key = key or str(uuid4())
        item = GroupItem(budget, value, min(floor, need), need, max(need, want))
        self.book.ask(key, Attribution(agent=agent, session=session), [item], wait_ms=wait_ms)
        return key

    def usage(self, *events: UsageEvent) -> UsageAnswer:
        usage = Usage(header=self.book.make_header(), events=list(events), position=7)
        return post(self.url + "usage", self.token, msgspec.json.encode(usage), UsageAnswer)


class Watch:
    """An open watch stream of a peer, read in a thread; `on_hint` is called for each hint."""

    def __init__(self, peer: Peer, on_hint: Callable[[], None]) -> None:
        self.beats = 0
        request = urllib.request.Request(f"{peer.url}watch?spool={peer.book.spool}")
        request.add_header("Authorization", f"Bearer {peer.token}")
        self._answer = urllib.request.urlopen(request, timeout=30)
        self._on_hint = on_hint
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._answer:
                self.beats += line == b": beat\n"
                if line == b"event: hint\n":
                    self._on_hint()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._answer.close()


def counters(budget: Budget, value: str = "") -> tuple[int, int, int, int]:
    balance = Balance.objects.get(budget=budget, value=value)
    return (
        balance.spent_amount,
        balance.held_amount,
        balance.suspense_amount,
        balance.overrun_amount,
    )
