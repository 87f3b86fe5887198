"""Agents that stream as fast as they are let, through whatever still answers."""

import asyncio
from collections import Counter
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

OUTPUT_TOKENS = 150


class Agent:
    """One agent with several callers, spread over the sidecars."""

    def __init__(self, name: str, *, key: str, model: str) -> None:
        self.name = name
        self.model = model
        self.seen: Counter[str] = Counter()
        self._key = key

    async def stream(self, urls: list[str], callers: int, until: asyncio.Event) -> None:
        await asyncio.gather(
            *(self._call(urls[number % len(urls)], number, until) for number in range(callers))
        )

    async def _call(self, url: str, number: int, until: asyncio.Event) -> None:
        async with AsyncOpenAI(
            base_url=f"{url}/v1", api_key=self._key, max_retries=0, timeout=20
        ) as client:
            turn = 0
            while not until.is_set():
                turn += 1
                outcome = await self.once(client, f"{number}.{turn}")
                self.seen[outcome] += 1
                if outcome != "finished":
                    await asyncio.sleep(0.2)

    async def once(self, client: AsyncOpenAI, name: str) -> str:
        """How one call ended: finished, cut, broken, or the status of its refusal."""
        ask: Any = {"model": self.model, "stream": True, "max_tokens": OUTPUT_TOKENS}
        ask["messages"] = [{"role": "user", "content": f"Tell a story, {name}."}]
        outcome = "broken"
        try:
            async for chunk in await client.chat.completions.create(**ask):
                if chunk.choices and chunk.choices[0].finish_reason:
                    outcome = "finished"
                if (chunk.model_extra or {}).get("comptroller") is not None:
                    outcome = "cut"
        except APIStatusError as error:
            return str(error.status_code)
        except (APIConnectionError, httpx2.HTTPError):
            return "broken"
        return outcome
