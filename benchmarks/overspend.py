"""Money past a hard cap, with 32 concurrent streaming clients of one agent.

    python benchmarks/overspend.py [--check] [--json FILE] [--clients 32] [--no-model]

The truth is the engine's own count times the price, never what the sidecar says. A strict $0.01
cap must hold to the nano-dollar; a metered cap must stay within the published bound. Once more with
`kill -9` of the sidecar in the middle of the storm: what it knew is in its journal.
"""

import asyncio
import os
import signal
from typing import Any

import httpx2
from common import Result, arguments, conclude, engine, get_json, scene, stack
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from controlplane.demo.engine import read_counters
from controlplane.launcher import state

CAP_NANOS = 10_000_000
RATES = {"input": 100_000_000, "cached_input": 100_000_000, "cache_write": 100_000_000}
MODEL_RATES = {
    "fast": RATES | {"output": 400_000_000},
    "gemma-3-270m": RATES | {"output": 16_000_000_000},
}
ROUNDS = 300
KILLS, KILL_AFTER_S = 2, 1.2
OUTPUT = {"fast": 200, "gemma-3-270m": 60}


async def hammer(url: str, key: str, model: str, clients: int, output: int) -> dict[str, int]:
    """Every client streams again and again until the budget refuses it for good."""
    seen = {"finished": 0, "cut": 0, "refused": 0, "waited": 0, "failed": 0, "broken": 0}

    async def one(client: AsyncOpenAI, number: int) -> None:
        for call in range(ROUNDS):
            ask: Any = {"model": model, "stream": True, "max_tokens": output}
            ask["messages"] = [{"role": "user", "content": f"Tell a long story, {number}.{call}."}]
            try:
                async for chunk in await client.chat.completions.create(**ask):
                    extra = chunk.model_extra or {}
                    seen["cut"] += extra.get("comptroller") is not None
                seen["finished"] += 1
            except APIStatusError as error:
                if error.status_code == 402:
                    seen["refused"] += 1
                    return
                seen["waited" if error.status_code in (429, 503) else "failed"] += 1
                await asyncio.sleep(0.2)
            except (APIConnectionError, httpx2.HTTPError):
                seen["broken"] += 1
                await asyncio.sleep(0.2)

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=600) as client:
        await asyncio.gather(*(one(client, number) for number in range(clients)))
    return seen


async def kill_sidecar(running: Any, times: int) -> None:
    """End it without a word, as often as asked; the launcher starts it again."""
    killed: set[int] = set()
    while len(killed) < times:
        await asyncio.sleep(KILL_AFTER_S)
        facts = state.read(running.installation.places) or {}
        (pid,) = (part["pid"] for part in facts["parts"] if part["part"] == "sidecar")
        if pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)


async def measure(
    result: Result,
    running: Any,
    *,
    model: str,
    mode: str,
    clients: int,
    truth: Any,
    kills: int = 0,
) -> None:
    """One cap, one storm; the overspend from the engine's own count."""
    slug = f"{model}-{mode}-{kills}".replace(".", "-")
    cap = {"name": "cap", "unit": "usd", "limit": CAP_NANOS, "hold_mode": mode}
    made = await scene(
        running, "agent", slug=slug, prices={model: MODEL_RATES[model]}, budgets=[cap]
    )
    before = truth()
    killing = asyncio.create_task(kill_sidecar(running, kills))
    seen = await hammer(
        running.installation.sidecar_url, made["key"], model, clients, OUTPUT[model]
    )
    await killing
    await asyncio.sleep(1)
    after = truth()
    ledger = await scene(running, "ledger", budget=made["budgets"][0], agent=made["agent"])
    prompt, output = after[0] - before[0], after[1] - before[1]
    rates = MODEL_RATES[model]
    produced = -(-(prompt * rates["input"] + output * rates["output"]) // 1_000_000)
    over = max(0, produced - CAP_NANOS)
    result.rows.append(
        (
            model,
            mode,
            clients,
            seen["finished"],
            seen["cut"],
            seen["refused"],
            seen["failed"],
            f"{kills} ({seen['broken']})" if kills else "–",
            prompt + output,
            produced,
            ledger["spent"],
            ledger["overrun"],
            over,
        )
    )
    name = f"{model}, {mode}, {kills} × kill -9" if kills else f"{model}, {mode}"
    result.goal(f"{name}: overspend past the cap is 0 nano-dollars", met=over == 0)
    result.goal(f"{name}: every client was refused at the end", met=seen["refused"] == clients)
    result.goal(
        f"{name}: the ledger has all that was produced",
        met=ledger["settled"] and produced <= ledger["spent"] + ledger["overrun"],
    )


async def run(asked: Any) -> Result:
    columns = [
        "engine",
        "hold",
        "clients",
        "finished",
        "clamped/cut",
        "402",
        "failed",
        "kill -9 (broken)",
        "tokens made",
    ]
    columns += ["truth n$", "ledger spent n$", "overrun n$", "overspend n$"]
    result = Result(f"Overspend past a hard cap of {CAP_NANOS} nano-dollars", columns)
    with engine("--model", "fast", "--rate", "400", "--abort-tokens", "1") as fast:

        def fast_truth() -> tuple[int, int]:
            said = get_json(f"{fast}/truth")
            return said["prompt_tokens"], said["output_tokens"]

        async with stack(
            upstreams=[f"fast={fast}"],
            model=not asked.no_model,
            COMPTROLLER_METERED_MARGIN="64",  # as doctor measures for so fast a stream
        ) as running:
            for mode in ("strict", "metered"):
                await measure(
                    result,
                    running,
                    model="fast",
                    mode=mode,
                    clients=asked.clients,
                    truth=fast_truth,
                )
            for mode in ("strict", "metered"):
                await measure(
                    result,
                    running,
                    model="fast",
                    mode=mode,
                    clients=asked.clients,
                    truth=fast_truth,
                    kills=KILLS,
                )
            if not asked.no_model:
                url = running.installation.model_url

                def model_truth() -> tuple[int, int]:
                    said = read_counters(url)
                    return said.input_tokens, said.output_tokens

                for mode in ("strict", "metered"):
                    await measure(
                        result,
                        running,
                        model="gemma-3-270m",
                        mode=mode,
                        clients=asked.clients,
                        truth=model_truth,
                    )
    return result


def main() -> None:
    asked = arguments(
        __doc__,
        clients=lambda p: p.add_argument("--clients", type=int, default=32),
        model=lambda p: p.add_argument("--no-model", action="store_true", help="fake engine only"),
    )
    conclude([asyncio.run(run(asked))], asked)


if __name__ == "__main__":
    main()
