"""The real model server of the demo extra, for tests and for the script that makes fixtures."""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_S = 60


@contextlib.contextmanager
def model_server() -> Iterator[str]:
    """Yields its address. The weights are put together in a directory of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="comptroller-model-") as folder:
        command = [sys.executable, "-m", "controlplane.demo.model", "--port", str(port)]
        process = subprocess.Popen(
            [*command, "--file", str(Path(folder) / "model.gguf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def chat(url: str, words: str, *, max_tokens: int) -> dict[str, Any]:
    """One whole answer of exactly this many tokens; its usage."""
    asked = {
        "messages": [{"role": "user", "content": words}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
    }
    request = urllib.request.Request(  # noqa: S310 -- our own server
        f"{url}/v1/chat/completions",
        data=json.dumps(asked).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 -- our own server
        usage: dict[str, Any] = json.load(answer)["usage"]
    return usage


def metrics_text(url: str) -> str:
    """The page, once no request runs: the engine books a request when it ends."""
    while True:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 -- our own server
            text: str = answer.read().decode()
        if "\nllamacpp:requests_processing 0\n" in text:
            return text
        time.sleep(0.05)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{url}/health", timeout=2).close()  # noqa: S310 -- our own server
            return
        assert process.poll() is None, "the model server ended"
        assert time.monotonic() < deadline, "the model server did not start in time"
        time.sleep(0.1)
