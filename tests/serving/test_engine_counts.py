"""Counts and cards: snapshots that the model's thread publishes, for readers in any thread."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import tiny
from serving.given import TASKS, TEXTS, example, store
from serving.test_local_engine import live

from foreword.serving.engine import Stats
from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import Request


def test_counts_and_cards_may_be_read_from_any_thread_at_any_time(tmp_path: Path) -> None:
    """Requests come, end and are cancelled, tasks are loaded and evicted; readers never see what the model's thread is changing."""
    prompts = store(tmp_path / "prompts")
    stop, found, errors = threading.Event(), list[Stats](), list[BaseException]()

    def read(engine: LocalEngine) -> None:
        try:
            while not stop.is_set():
                stats = engine.stats()
                assert sum(stats.by_task.values()) == stats.running <= 3
                assert stats.resident <= len(engine.tasks()) == len(TASKS)
                found.append(stats)
        except BaseException as error:
            errors.append(error)

    async def client(engine: LocalEngine, index: int, task: str) -> None:
        events = engine.submit(Request(str(index), task, example(task, TEXTS[index % len(TEXTS)])))
        async for _ in events:
            if index % 4 == 0:
                engine.cancel(str(index))

    async def hammer() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts), max_sequences=3, memory_bytes=100_000) as engine:
            readers = [threading.Thread(target=read, args=(engine,)) for _ in range(3)]
            for reader in readers:
                reader.start()
            await asyncio.gather(*(client(engine, index, task) for index, task in enumerate(sorted(TASKS) * 5)))
            stop.set()
            for reader in readers:
                await asyncio.to_thread(reader.join)
            assert (engine.stats().running, engine.stats().waiting) == (0, 0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        live(hammer())
    finally:
        sys.setswitchinterval(interval)
    assert not errors and any(stats.running for stats in found)
