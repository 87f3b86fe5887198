"""Simulated exporters: a real vLLM's page on as many ports as asked, with totals that grow.

    python benchmarks/exporters.py COUNT

Prints its ports as JSON. One process for all of them; each port is a node of its own, with its own
life and its own totals.
"""

import asyncio
import json
import re
import sys
import time
from pathlib import Path

PAGE = (
    Path(__file__).resolve().parent.parent / "tests" / "collectors" / "fixtures" / "vllm_0_32.prom"
).read_text()
TOKENS_PER_S = 1_000
STARTED = "process_start_time_seconds 1.79545525511e+09"
_TOTALS = re.compile(r"^(vllm:(?:prompt|generation)_tokens_total\{[^}]*\}) \S+$", re.MULTILINE)


async def main(count: int) -> None:
    began = time.monotonic()
    servers = [await asyncio.start_server(_node(n, began), "127.0.0.1", 0) for n in range(count)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.Event().wait()


def _node(number: int, began: float):  # type: ignore[no-untyped-def] # noqa: ANN202 -- asyncio's callback
    page = PAGE.replace(STARTED, f"process_start_time_seconds {1_795_455_255 + number}.5")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            made = int((time.monotonic() - began) * TOKENS_PER_S)
            body = _TOTALS.sub(rf"\1 {made}.0", page).encode()
            if head.startswith(b"GET /version"):
                body = b'{"version":"0.32.0"}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the visitor has left
        finally:
            writer.close()

    return answer


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
