"""Long work runs in one of a few threads, short work at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from foreword.server.worker_threads import SMALL_BYTES, WorkerThreads


def test_only_large_work_leaves_the_event_loop() -> None:
    async def main() -> None:
        threads, here = WorkerThreads(), threading.current_thread()
        assert await threads.run(SMALL_BYTES, threading.current_thread) is here
        assert await threads.run(SMALL_BYTES + 1, threading.current_thread) is not here
        with pytest.raises(ZeroDivisionError):
            await threads.run(SMALL_BYTES + 1, lambda: 1 / 0)
        assert await threads.run(SMALL_BYTES + 1, sorted, [2, 1], reverse=True) == [2, 1]
        threads.close()

    asyncio.run(main())


def test_no_more_threads_than_there_are() -> None:
    async def main() -> None:
        threads, running, most, gate = WorkerThreads(2), set[int](), [0], threading.Event()

        def work() -> None:
            running.add(threading.get_ident())
            most[0] = max(most[0], len(running))
            gate.wait(10)
            running.discard(threading.get_ident())

        jobs = [asyncio.create_task(threads.run(SMALL_BYTES + 1, work)) for _ in range(6)]
        while len(running) < 2:
            await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*jobs)
        assert most == [2]
        threads.close()

    asyncio.run(main())
