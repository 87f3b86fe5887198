"""One event loop for each process that reads nodes, in a thread, for as long as the process lives.

A name server that hangs keeps a thread of that loop, not whoever waits for a name: they still end
at their deadline. `asyncio.run` would wait for the thread.
"""

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_NAMES_AT_ONCE = 64
Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """What the work returns. It is cancelled when the caller is interrupted."""
    running = asyncio.run_coroutine_threadsafe(work, _loop_of(os.getpid()))
    try:
        return running.result()
    except BaseException:  # a task's time limit arrives here
        running.cancel()
        raise


@functools.cache
def _loop_of(pid: int) -> asyncio.AbstractEventLoop:
    """The loop of this process: one from before a fork has lost its thread."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(_NAMES_AT_ONCE, thread_name_prefix="names"))
    threading.Thread(target=loop.run_forever, name=f"visits-{pid}", daemon=True).start()
    return loop
