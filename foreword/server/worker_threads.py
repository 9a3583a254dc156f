"""Threads for work that would hold up the event loop: reading large bodies, counting the tokens of long texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, final

Given = ParamSpec("Given")
Result = TypeVar("Result")
NUM_THREADS = 2  # few: they share the interpreter with the event loop
SMALL_BYTES = 16 << 10  # work on so little is done at once: it takes less than a millisecond or two


@final
class WorkerThreads:
    """A fixed number of threads; what finds none free waits in line."""

    def __init__(self, count: int = NUM_THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, "foreword-server")

    async def run(self, num_bytes: int, work: Callable[Given, Result], *args: Given.args, **options: Given.kwargs) -> Result:
        """The result of work on so many bytes: in a thread, or at once if they are few."""
        if num_bytes <= SMALL_BYTES:
            return work(*args, **options)
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **options))

    def close(self) -> None:
        """Take no more work; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
