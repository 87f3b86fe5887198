"""The parts of one installation, in the order of their start."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.launcher import binaries, postgres, privileges, probes, valkey
from controlplane.launcher.places import Places
from controlplane.launcher.supervisor import ALIVE_AT, Part

CHECKOUT = Path(__file__).resolve().parents[2]
SIDECAR_PORT_OFFSET = 100
DEFAULT_UPSTREAM = "http://127.0.0.1:8000"  # where vLLM listens unless told otherwise
MODEL_PORT_OFFSET = 200
MARGIN_ENV = "COMPTROLLER_METERED_MARGIN"
DEMO_MARGIN = "64"  # tokens; its model was seen to stop within 6, as doctor measures
UPSTREAM_KEY_PREFIX = "COMPTROLLER_UPSTREAM_KEY_"
LLAMA_CPP_HEALTH = "/health"
TELEMETRY_PREFIXES = ("COMPTROLLER_OTLP_", "OTEL_")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the person asked for on the command line."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8300
    upstreams: tuple[str, ...] = ()
    demo_model: bool = False  # also run the demo's own serving node, and put it first
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Installation:
    """Addresses, environment and parts that follow from the wishes."""

    def __init__(self, wishes: Wishes, places: Places) -> None:
        self.wishes = wishes
        self.places = places
        self.host = wishes.host
        self._web = probes.reserved_port(wishes.host, wishes.port)
        self.web_port = probes.port_of(self._web)
        self._sidecar = probes.reserved_port(wishes.host, self.web_port + SIDECAR_PORT_OFFSET)
        self.sidecar_port = probes.port_of(self._sidecar)
        self._model: socket.socket | None = None
        self.model_port = self.web_port + MODEL_PORT_OFFSET
        if wishes.demo_model:
            self._model = probes.reserved_port("127.0.0.1", self.model_port)
            self.model_port = probes.port_of(self._model)
        self.cluster = None if wishes.environ.get("DATABASE_URL") else self._cluster()
        self.broker = None if wishes.environ.get("BROKER_URL") else self._broker()

    @property
    def web_url(self) -> str:
        return f"http://{self._visible_host}:{self.web_port}"

    @property
    def sidecar_url(self) -> str:
        return f"http://{self._visible_host}:{self.sidecar_port}"

    @property
    def model_url(self) -> str:
        return f"http://127.0.0.1:{self.model_port}"

    @property
    def upstreams(self) -> tuple[str, ...]:
        own = (f"demo={self.model_url}",) if self.wishes.demo_model else ()
        return (*own, *self.wishes.upstreams) or (DEFAULT_UPSTREAM,)

    @property
    def _visible_host(self) -> str:
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host

    @property
    def application_identity(self) -> privileges.Identity | None:
        """Python parts drop root's powers too, where the other uid can read code and libraries."""
        identity = self.places.identity
        needed = (CHECKOUT, Path(sys.prefix), Path(sys.executable).resolve().parent)
        if all(privileges.can_enter(place, identity) for place in needed):
            return identity
        return None

    def environment(self) -> dict[str, str]:
        """What every Python part is told."""
        environ = self.wishes.environ
        return {
            **environ,
            "COMPTROLLER_DATA_DIR": str(self.places.data),
            "COMPTROLLER_PUBLIC_URL": environ.get("COMPTROLLER_PUBLIC_URL", self.web_url),
            "COMPTROLLER_SIDECAR_URL": environ.get("COMPTROLLER_SIDECAR_URL", self.sidecar_url),
            "COMPTROLLER_SECRET_KEY": environ.get("COMPTROLLER_SECRET_KEY")
            or self.places.secret("secret-key"),
            "DATABASE_URL": self.cluster.url if self.cluster else environ["DATABASE_URL"],
            "BROKER_URL": self.broker.url if self.broker else environ["BROKER_URL"],
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "HOME": str(self.places.services),
            "PYTHONUNBUFFERED": "1",
        }

    def database(self) -> Part | None:
        if self.cluster is None:
            return None
        cluster = self.cluster
        return Part(
            name="database",
            title="PostgreSQL",
            command=cluster.command(postgres.EVERYDAY_SETTINGS),
            environment=self._bare_environment(),
            log=self.places.log("database"),
            identity=self.places.identity,
            ready=lambda start: probes.of(lambda: cluster.is_ready(start.pid)),
            farewell=postgres.STOP,
            vital=True,
            address=str(cluster.sockets),
        )

    def message_broker(self) -> Part | None:
        if self.broker is None:
            return None
        broker = self.broker
        return Part(
            name="broker",
            title="Valkey",
            command=broker.command(),
            environment=self._bare_environment(),
            log=self.places.log("broker"),
            identity=self.places.identity,
            ready=lambda _: probes.of(broker.is_ready),
            farewell=valkey.STOP,
            address=str(broker.socket),
        )

    def web(self) -> Part:
        return self._python_part(
            "web",
            "web (dashboard, API)",
            *("-m", "uvicorn", "controlplane.asgi:application", "--no-access-log"),
            *("--host", self.host, "--port", str(self.web_port)),
            *("--timeout-graceful-shutdown", "3"),
            address=self.web_url,
            reservation=self._web,
            ready=lambda _: probes.http_ok(self._visible_host, self.web_port, "/healthz"),
        )

    def worker(self) -> Part:
        schedule = self.places.service("beat") / "schedule"
        return self._celery_part(
            "worker",
            "worker (Celery with beat)",
            *("--queues", "critical,comptroller", "--concurrency", "2"),
            *("--beat", "--schedule", str(schedule)),
        )

    def collector(self) -> Part:
        """A worker of its own: nodes that hang hold up nothing but the reading of nodes."""
        return self._celery_part(
            "collector",
            "collector (reads serving nodes)",
            *("--queues", "scrape", "--concurrency", "1"),
        )

    def _celery_part(self, name: str, title: str, *flags: str) -> Part:
        log = self.places.log(name)
        return self._python_part(
            name,
            title,
            *("-m", "celery", "-A", "controlplane.celery:app", "worker", *flags),
            *("--hostname", f"{name}@%h", "--loglevel", "WARNING"),
            *("--without-mingle", "--without-gossip"),
            ready=lambda start: probes.log_says(log, b"worker ready", after=start.log_bytes),
        )

    def model(self) -> Part | None:
        """The demo's serving node."""
        if not self.wishes.demo_model:
            return None
        return self._python_part(
            "model",
            "model (llama.cpp, Gemma 3 270M)",
            *("-m", "controlplane.demo.model", "--port", str(self.model_port)),
            *("--file", str(self.places.service("model") / "gemma-3-270m.gguf")),
            address=self.model_url,
            reservation=self._model,
            ready=lambda _: probes.http_ok("127.0.0.1", self.model_port, LLAMA_CPP_HEALTH),
            alive_at=LLAMA_CPP_HEALTH,
        )

    def sidecar(self, *, token: str) -> Part:
        upstreams = [part for url in self.upstreams for part in ("--upstream", url)]
        keys = {
            name: value
            for name, value in self.wishes.environ.items()
            if name.startswith((UPSTREAM_KEY_PREFIX, *TELEMETRY_PREFIXES))
        }
        part = self._python_part(
            "sidecar",
            "sidecar",
            *("-m", "controlplane.cli.main", "sidecar", "run"),
            *("--listen", f"{self.host}:{self.sidecar_port}"),
            *("--spool-dir", str(self.places.service("spool")), *upstreams),
            address=self.sidecar_url,
            reservation=self._sidecar,
            ready=lambda _: probes.http_ok(self._visible_host, self.sidecar_port, "/readyz"),
        )
        # The sidecar is told only what it needs: no key of the control plane, no database.
        part.environment = {
            **self._bare_environment(),
            **keys,
            "COMPTROLLER_CONTROL_URL": self.web_url,
            "COMPTROLLER_SIDECAR_TOKEN": token,
            **self._declared_margin(),
            "PYTHONUNBUFFERED": "1",
        }
        return part

    def _declared_margin(self) -> dict[str, str]:
        """The margin of metered budgets, as told, or as the demo's own model is known to need."""
        declared = self.wishes.environ.get(MARGIN_ENV) or (
            DEMO_MARGIN if self.wishes.demo_model else ""
        )
        return {MARGIN_ENV: declared} if declared else {}

    def _python_part(
        self,
        name: str,
        title: str,
        *arguments: str,
        ready: Callable[[probes.Start], probes.Probe],
        address: str = "",
        alive_at: str = ALIVE_AT,
        reservation: socket.socket | None = None,
    ) -> Part:
        return Part(
            name=name,
            title=title,
            command=[sys.executable, *arguments],
            environment=self.environment(),
            log=self.places.log(name),
            identity=self.application_identity,
            ready=ready,
            farewell=signal.SIGTERM,
            address=address,
            alive_at=alive_at,
            reservation=reservation,
        )

    def _bare_environment(self) -> dict[str, str]:
        return {
            **postgres.CLEAN_ENVIRONMENT,
            "COMPTROLLER_DATA_DIR": str(self.places.data),
            "HOME": str(self.places.services),
        }

    def _cluster(self) -> postgres.Cluster:
        places = self.places
        return postgres.Cluster(
            programs=privileges.readable_copy(
                binaries.postgres_programs(self.wishes.environ),
                cache=places.services.resolve() / "programs",
                identity=places.identity,
            ),
            data=places.service("postgres") / "cluster",
            sockets=places.sockets,
            identity=places.identity,
        )

    def _broker(self) -> valkey.Broker:
        places = self.places
        program = binaries.valkey_program(self.wishes.environ)
        readable = privileges.readable_copy(
            program.parent, cache=places.services.resolve() / "programs", identity=places.identity
        )
        return valkey.Broker(
            program=readable / program.name, data=places.service("valkey"), sockets=places.sockets
        )
