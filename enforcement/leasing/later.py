"""Queries that travel together: sent one after another, answered in one round trip.

In a pipeline of psycopg `execute` only queues; the first answer that is read sends all that waits.
So a batch sends what it needs at one moment, and then reads.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

Connection = AsyncConnection[TupleRow]
Rows = list[TupleRow]
T = TypeVar("T")


class Later(Generic[T]):
    """An answer that is on its way."""

    def __init__(self, fetch: Callable[[], Awaitable[Rows]], read: Callable[[Rows], T]) -> None:
        self._fetch = fetch
        self._read = read

    async def get(self) -> T:
        """The answer, once. Raises whatever the database says of its query."""
        return self._read(await self._fetch())


async def send(
    connection: Connection,
    query: str,
    values: Sequence[Any] | Mapping[str, Any] | None,
    read: Callable[[Rows], T],
) -> Later[T]:
    """Send a query; `read` makes its answer out of rows."""
    cursor = await connection.execute(query, values)
    return Later(cursor.fetchall, read)


def known(answer: T) -> Later[T]:
    """An answer that needs no query."""
    return Later(_no_rows, lambda _: answer)


async def _no_rows() -> Rows:
    return []
