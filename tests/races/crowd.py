"""Many threads at once, each with a database connection of its own and real commits."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from django.db import connection

T = TypeVar("T")
PATIENCE_S = 60


def at_once(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Start all jobs at the same moment; their results in order. The first error is raised."""
    barrier = Barrier(len(jobs))

    def run(job: Callable[[], T]) -> T:
        try:
            connection.ensure_connection()
            barrier.wait(PATIENCE_S)
            return job()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        return [future.result(PATIENCE_S) for future in futures]


def apart(job: Callable[[], T]) -> Callable[[], T]:
    """Run a job in a thread of its own, now; call the result to wait for it."""

    def run() -> T:
        try:
            return job()
        finally:
            connection.close()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return lambda: future.result(PATIENCE_S)
