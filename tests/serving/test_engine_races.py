"""Loads, unloads, replacements, broken folders, requests and cancellations in any order: each request ends once, with an answer of one version."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import tiny
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from serving.given import TASKS, TEXTS, adapter, example, predicted

from foreword.errors import AdapterError, CapacityError
from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import END, Answer, Done, Event, Failed, Request, Token
from foreword.serving.sampling import SamplingParams

NAMES = ("prefix", "longer", "leading", "label", "lora", "head")
SEEDS = (1, 2)
Result = TypeVar("Result")
names, texts = st.sampled_from(NAMES), st.sampled_from(TEXTS)


class Races(RuleBasedStateMachine):
    """One engine that watches its store; its budget holds a few of the tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        for name in NAMES:
            adapter("llama", name, SEEDS[0]).save(self.folder / name)
        self.loop = asyncio.new_event_loop()
        self.engine = LocalEngine(tiny.frozen("llama"), str(self.folder), max_sequences=3, memory_bytes=90_000, watch=0.005)
        self.requests: list[tuple[str, str, asyncio.Task[list[Event]]]] = []
        self.calls: list[asyncio.Task[object]] = []
        self.run(self.engine.start())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    async def events(self, request: Request) -> list[Event]:
        return [event async for event in self.engine.submit(request)]

    @rule(name=names, text=texts, count=st.sampled_from([None, 1, 4]))
    def submit(self, name: str, text: str, count: int | None) -> None:
        request = Request(str(len(self.requests)), name, example(name, text), SamplingParams(max_tokens=count))
        self.requests.append((name, text, self.loop.create_task(self.events(request))))

    @rule(index=st.integers(0, 30))
    def cancel(self, index: int) -> None:
        self.engine.cancel(str(index))

    @rule(name=names, pinned=st.booleans(), wait=st.booleans())
    def load(self, name: str, pinned: bool, wait: bool) -> None:
        self._call(self.engine.load(name, pinned=pinned), wait)

    @rule(name=names, wait=st.booleans())
    def unload(self, name: str, wait: bool) -> None:
        self._call(self.engine.unload(name), wait)

    @rule(name=names, seed=st.sampled_from(SEEDS))
    def replace(self, name: str, seed: int) -> None:
        manifest = self.folder / name / "foreword.json"
        if manifest.parent.exists():
            manifest.touch()  # so that it may be replaced
        adapter("llama", name, seed).save(self.folder / name, overwrite=True)

    @rule(name=names, how=st.sampled_from(["manifest", "numbers", "gone"]))
    def spoil(self, name: str, how: str) -> None:
        folder = self.folder / name
        if how == "gone":
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            (folder / ("foreword.json" if how == "manifest" else "adapter_model.safetensors")).write_bytes(b"{")

    @rule(seconds=st.sampled_from([0.0, 0.002, 0.02]))
    def pause(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def _call(self, work: Coroutine[Any, Any, object], wait: bool) -> None:
        self.calls.append(self.loop.create_task(work))
        if wait:
            self.run(asyncio.wait(self.calls[-1:]))  # type: ignore[arg-type]

    def teardown(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.run(self.engine.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder)
        assert not self.engine.thread.alive

    async def _end(self) -> None:
        for error in await asyncio.gather(*self.calls, return_exceptions=True):
            assert not isinstance(error, BaseException) or isinstance(error, AdapterError | CapacityError), error
        for name, text, task in self.requests:
            events = await task
            assert [isinstance(event, END) for event in events] == [False] * (len(events) - 1) + [True]
            if isinstance(events[-1], Failed):
                assert events[-1].kind in ("task", "capacity"), events[-1]
            elif isinstance(events[-1], Done):
                found = "".join(event.text for event in events if isinstance(event, Token | Answer))
                whole = {predicted("llama", name, text, seed) for seed in SEEDS}
                assert found in whole or any(answer.startswith(found) for answer in whole) and events[-1].reason != "stop"
        assert self.engine.healthy
        await asyncio.wrap_future(self.engine.thread.call(self.engine.core.check))
        for name in [name for name, entry in self.engine.registry if entry.version is not None]:
            await self.engine.unload(name)
        await asyncio.wrap_future(self.engine.thread.call(self.engine.core.check))
        stats = self.engine.stats()
        assert (stats.running, stats.waiting, stats.by_task) == (0, 0, {})


Races.TestCase.settings = settings(
    max_examples=10, stateful_step_count=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
)
test_races = Races.TestCase
assert set(NAMES) <= set(TASKS)
