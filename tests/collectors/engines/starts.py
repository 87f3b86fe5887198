"""How each engine is started here. Each yields what is asked, and where its counters are."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.collectors.engines.places import python_of
from tests.collectors.engines.server import free_port, running, wait
from tests.collectors.modelserver import model_server

TINY = Path(__file__).parents[2] / "inprocess" / "tiny_model.py"
NAME = "tiny"
KEY = "sk-of-the-proxy-0123456789abcdef"
DYNAMO_PORTS = {"prefill": 18101, "decode": 18102}  # it takes none above 32,767
ONE_BOX = {"OMP_NUM_THREADS": "2", "VLLM_HOST_IP": "127.0.0.1"}


@dataclass(frozen=True)
class Engine:
    """A running engine. `pages`: where counters are, the first of what is asked; none: nowhere."""

    url: str
    model: str
    pages: tuple[tuple[str, str], ...]  # address and path
    key: str = ""
    ends: bool = False  # whether it knows no word for going on after an end


@contextlib.contextmanager
def llamacpp() -> Iterator[Engine]:
    with model_server() as url:
        yield Engine(url, NAME, ((url, "/metrics"),))


@contextlib.contextmanager
def vllm() -> Iterator[Engine]:
    python = python_of("vllm")
    with _folder() as folder:
        model = _tiny(python, folder)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [
            python,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            model,
        ]
        command += ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager"]
        small = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        with running(command, folder, "vllm", **ONE_BOX, **small) as process:
            wait(f"{url}/health", process, folder / "vllm.log")
            yield Engine(url, NAME, ((url, "/metrics"),))


@contextlib.contextmanager
def transformers() -> Iterator[Engine]:
    python = python_of("transformers")
    with _folder() as folder:
        model = _tiny(python, folder)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [
            python.parent / "transformers",
            "serve",
            model,
            "--continuous-batching",
        ]
        command += ["--cb-num-blocks", "256", "--cb-max-batch-tokens", "256", "--device", "cpu"]
        command += ["--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(port)]
        with running(command, folder, "transformers", **ONE_BOX) as process:
            wait(f"{url}/health", process, folder / "transformers.log")
            yield Engine(url, str(model), (), ends=True)


@contextlib.contextmanager
def dynamo() -> Iterator[Engine]:
    """A front end, a prefill and a decode worker: NVIDIA's own mocker, which needs no GPU.

    Its planes listen on all addresses: start it in a network of its own.
    """
    python = python_of("dynamo")
    with _folder() as folder, contextlib.ExitStack() as stack:
        model = _tiny(python, folder)
        planes = {"DYN_DISCOVERY_BACKEND": "file", "DYN_FILE_KV": str(folder / "kv")}
        planes |= {"DYN_REQUEST_PLANE": "tcp", "DYN_EVENT_PLANE": "zmq"}
        pages = []
        for part, port in DYNAMO_PORTS.items():
            command: list[str | Path] = [python, "-m", "dynamo.mocker", "--model-path", model]
            command += ["--model-name", NAME, "--disaggregation-mode", part]
            command += ["--speedup-ratio", "10"]
            if part == "prefill":
                command += ["--bootstrap-ports", "18111"]
            system = {"DYN_SYSTEM_HOST": "127.0.0.1", "DYN_SYSTEM_PORT": str(port)}
            process = stack.enter_context(running(command, folder, part, **planes, **system))
            page = f"http://127.0.0.1:{port}"
            wait(f"{page}/metrics", process, folder / f"{part}.log")
            pages.append((page, "/metrics"))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [python, "-m", "dynamo.frontend", "--http-host", "127.0.0.1"]
        command += ["--http-port", str(port), "--router-mode", "round-robin"]
        process = stack.enter_context(running(command, folder, "frontend", **planes))
        wait(f"{url}/v1/models", process, folder / "frontend.log", until=NAME)
        yield Engine(url, NAME, ((url, "/metrics"), *pages))


@contextlib.contextmanager
def litellm() -> Iterator[Engine]:
    """LiteLLM's proxy in front of llama.cpp."""
    python = python_of("litellm")
    with _folder() as folder, model_server() as behind:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        config = {
            "model_list": [
                {
                    "model_name": NAME,
                    "litellm_params": {
                        "model": f"openai/{NAME}",
                        "api_base": f"{behind}/v1",
                        "api_key": "none",
                    },
                }
            ],
            "litellm_settings": {
                "callbacks": ["prometheus"],
                "require_auth_for_metrics_endpoint": False,
            },
            "general_settings": {"master_key": KEY},
        }
        (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        command: list[str | Path] = [python.parent / "litellm", "--config", folder / "config.yaml"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with running(command, folder, "litellm", **local) as process:
            wait(f"{url}/health/readiness", process, folder / "litellm.log")
            yield Engine(url, NAME, ((url, "/metrics/"),), KEY)


STARTS: dict[str, Callable[[], AbstractContextManager[Engine]]] = {
    "llama.cpp": llamacpp,
    "vllm": vllm,
    "transformers": transformers,
    "dynamo": dynamo,
    "litellm": litellm,
}


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="comptroller-engine-") as folder:
        yield Path(folder)


def _tiny(python: Path, folder: Path) -> Path:
    """A model of half a megabyte with random weights; without PyTorch, its tokenizer alone."""
    made = folder / "tiny"
    subprocess.run((python, TINY, made), check=True, stdout=sys.stderr)
    return made
