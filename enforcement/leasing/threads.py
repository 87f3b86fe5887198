"""A few threads of our own for Django's ORM: the event loop never waits for them.

Each keeps its database connection between calls, and closes it at the end.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connections

THREADS = 3

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class DjangoThreads:
    """Runs synchronous work that uses the ORM."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="leases-orm")

    async def run(
        self,
        work: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(_fresh, work, *args, **kwargs))

    async def close(self) -> None:
        """Close the connection of every thread, then the threads."""
        barrier = Barrier(THREADS)
        loop = asyncio.get_running_loop()
        closing = [loop.run_in_executor(self._executor, _close, barrier) for _ in range(THREADS)]
        await asyncio.gather(*closing)
        self._executor.shutdown(wait=False)


def _fresh(
    work: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    close_old_connections()
    return work(*args, **kwargs)


def _close(barrier: Barrier) -> None:
    barrier.wait(10)  # one job for each thread
    connections.close_all()
