"""The engine inside this process: one thread runs the model, others read adapters, an event loop submits requests and reads their events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import final

from foreword.adapters.store import AdapterStore
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.errors import AdapterError, CapacityError, ForewordError, ServingError, UsageError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.adapter_loader import AdapterLoader
from foreword.serving.engine import Stats, TaskCard
from foreword.serving.engine_core import EngineCore
from foreword.serving.engine_thread import Call, EngineThread, Events
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.registry import Registry, Version
from foreword.serving.request import END, Event, Failed, Request

CLOSED = "the engine is closed and accepts no more requests"
NOT_STARTED = "the engine is not running; start it first."


@final
class LocalEngine:
    """Continuous batching of any tasks of a store over one frozen model. `async with LocalEngine(model, store) as engine:`.

    `max_sequences` sequences run together, `max_waiting` more requests may wait. `memory_bytes` is what tasks, cached texts and running sequences may
    take together; texts are kept for later requests with `prefix_caching`.
    `watch` looks for new and changed adapters every so many seconds (0: only when `load` asks).
    """

    def __init__(
        self,
        model: FrozenModel,
        store: AdapterStore | str,
        *,
        max_sequences: int = 32,
        max_waiting: int = 1024,
        memory_bytes: int | None = None,
        prefix_caching: bool = True,
        watch: float = 0.0,
    ) -> None:
        self.model = model
        self.registry = Registry(store if isinstance(store, AdapterStore) else AdapterStore(store))
        self.core = EngineCore(model, max_sequences=max_sequences, memory_bytes=memory_bytes, prefix_caching=prefix_caching)
        self.loader = AdapterLoader(model, self.registry)
        self.limit, self.watch = max_sequences + max_waiting, watch
        self._queues: dict[str, asyncio.Queue[Event]] = {}
        self.thread = EngineThread(self.core, self.loader, self.registry, self._on_events, self._on_fault)
        self._started = self._closed = False
        self._starting = asyncio.Lock()  # a start and a close never overlap
        self._problem: str | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LocalEngine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Read the store's list and begin, once; raises AdapterError where the store cannot be read, ServingError after `close`."""
        async with self._starting:
            if self._closed:
                raise ServingError(f"{CLOSED}; use a new one.")
            if self._started:
                return
            self._loop = asyncio.get_running_loop()
            await asyncio.to_thread(self.registry.scan)
            if self._closed:  # meanwhile
                raise ServingError(f"{CLOSED}; use a new one.")
            self.thread.start()
            self._started = True
            if self.watch:
                self._watching = asyncio.create_task(self._watch())

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Accept no more requests, wait for running ones up to `drain_seconds`, cancel the rest, and stop. May be called again, and before `start`."""
        self._closed = True
        async with self._starting:
            await self._stop(drain_seconds)

    async def _stop(self, drain_seconds: float) -> None:
        if not self._started:
            self.loader.close()
            return
        if self._watching is not None:
            self._watching.cancel()
        until = self._loop.time() + drain_seconds
        while self._queues and self.healthy and self._loop.time() < until:
            await asyncio.sleep(0.02)
        for name in list(self._queues):
            self.cancel(name)
        await asyncio.to_thread(self.thread.stop)
        self.loader.close()

    @property
    def info(self) -> ModelInfo:
        """The base model without its weights."""
        return self.model.info

    @property
    def healthy(self) -> bool:
        return self._problem is None and self.thread.alive

    def submit(self, request: Request) -> AsyncIterator[Event]:
        """The events of a request, which begins now. Raises UsageError for an id that is in use."""
        if request.id in self._queues:
            raise UsageError(f"a request with the id '{request.id}' is still running; give each request its own id.")
        rejected = self._rejection(request)
        events: asyncio.Queue[Event] = asyncio.Queue()
        if rejected is not None:
            events.put_nowait(rejected)
        else:
            self._queues[request.id] = events
            version = None if request.task is None else self.registry.current(request.task)
            key = version.key if version else None
            self.thread.add(request, key)
        return self._events(request.id, events)

    def _rejection(self, request: Request) -> Failed | None:
        if self._problem is not None:
            return Failed("engine", self._problem)
        if self._closed:
            return Failed("capacity", "the engine is shutting down and accepts no more requests; use another server, or try again later.")
        if not self._started:
            return Failed("engine", NOT_STARTED)
        if len(self._queues) >= self.limit:
            return Failed(
                "capacity", f"{len(self._queues)} requests are running or waiting, and this engine accepts no more; try again later."
            )
        if request.task is not None and self.registry.current(request.task) is None:
            return Failed("task", self.registry.problem(request.task) or f"The task '{request.task}' does not exist.")
        return None

    async def _events(self, name: str, events: asyncio.Queue[Event]) -> AsyncIterator[Event]:
        try:
            while True:
                event = await events.get()
                yield event
                if isinstance(event, END):
                    return
        finally:
            if self._queues.get(name) is events:  # left early
                self.cancel(name)

    def cancel(self, request_id: str) -> None:
        """End a request; its KV row is free before the next step."""
        if request_id in self._queues:
            self.thread.call_soon(lambda: self.core.cancel(request_id))

    async def load(self, name: str, *, pinned: bool = False) -> TaskCard:
        """Load a task's newest version into memory. Raises AdapterError for adapters that cannot be read, CapacityError if the budget is in use."""
        if self._closed or not self._started:
            raise self._stopped()
        before = self.registry.current(name)
        version = await asyncio.to_thread(self.registry.newest, name)
        if version.key not in self.core.adapters.tasks:
            task = await asyncio.wrap_future(self.loader.read(version.key))
            await self._install(task, pinned)
        elif pinned:
            await self._call(lambda: self.core.adapters.cache.pin(version.key))
        if before is not None and before.key != version.key:
            await self._call(lambda: self.core.retire(before.key))
        return self._card(name, version, None)

    async def _install(self, task: LoadedTask, pinned: bool) -> None:
        """Install a task, waiting while running requests use the whole budget."""
        while True:
            try:
                await self._call(lambda: self.core.install(task, pinned=pinned))
                return
            except CapacityError:
                if not self.core.running:
                    raise
                await asyncio.sleep(0.02)

    async def unload(self, name: str) -> None:
        """Remove a task from memory once no request reads it; raises AdapterError for an unknown name."""
        if self._closed or not self._started:
            raise self._stopped()
        version = self.registry.current(name)
        if version is None:
            raise AdapterError(f"The task '{name}' does not exist.")
        await self._call(lambda: self.core.retire(version.key))

    def tasks(self) -> Sequence[TaskCard]:
        """A card for each task of the store."""
        return [self._card(name, entry.version, entry.problem) for name, entry in self.registry]

    def card(self, name: str) -> TaskCard | None:
        """One task's card, None for a name the store does not have."""
        version, problem = self.registry.current(name), self.registry.problem(name)
        return None if version is None and problem is None else self._card(name, version, problem)

    def _card(self, name: str, version: Version | None, problem: str | None) -> TaskCard:
        root = self.registry.store.path(name)
        if version is None:
            return TaskCard(name, "", "", root, "broken", problem=problem)
        state = "resident" if version.key in self.core.adapters.tasks else "loading" if version.key in self.loader.busy else "known"
        facts = (version.columns, version.key.digest, version.num_bytes, problem, version.conversation)
        return TaskCard(name, version.kind, version.base, root, state, *facts)

    def stats(self) -> Stats:
        """Counts at this moment."""
        core = self.core
        by_task: dict[str, int] = {}
        running = core.running
        for request in running:
            name = request.task or self.model.name
            by_task[name] = by_task.get(name, 0) + 1
        return Stats(
            running=len(running),
            waiting=len(core.scheduler.waiting),
            tasks=len(self.registry),
            resident=len(core.adapters.tasks),
            prefix_bytes=core.adapters.cache.num_bytes,
            memory_bytes=core.kv.budget.used,
            memory_budget=core.kv.budget.total,
            steps_total=core.num_steps,
            loads_total=self.loader.count,
            evictions_total=core.adapters.num_evictions,
            preemptions_total=core.scheduler.num_preemptions,
            by_task=by_task,
        )

    async def _watch(self) -> None:
        """Check the store periodically; changed tasks in memory are replaced, deleted ones are removed."""
        while True:
            await asyncio.sleep(self.watch)
            before = {name: entry.version for name, entry in self.registry}
            try:
                changed = await asyncio.to_thread(self.registry.scan)
            except AdapterError:
                continue  # the store is unavailable at present; tasks in memory are still served
            for name in changed:
                old = before.get(name)
                if old is not None and old.key in self.core.adapters.tasks:
                    await self._replace(name, old.key)

    async def _replace(self, name: str, old: AdapterKey) -> None:
        if name in self.registry:
            with contextlib.suppress(ForewordError):  # its card says what is wrong
                await self.load(name)
        await self._call(lambda: self.core.retire(old))

    def _stopped(self) -> ServingError:
        return ServingError(self._problem or (f"{CLOSED}; use a new one." if self._closed else NOT_STARTED))

    async def _call(self, call: Call) -> None:
        """Make a call in the engine's thread between two steps."""
        done: asyncio.Future[None] = self._loop.create_future()

        def answer(error: Exception | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def run() -> None:
            error = None
            try:
                call()
            except ForewordError as problem:
                error = problem
            self._loop.call_soon_threadsafe(answer, error)

        if not self.healthy:
            raise self._stopped()
        self.thread.call_soon(run)
        await done

    def _deliver(self, events: Events) -> None:
        for name, event in events:
            queue = self._queues.get(name)
            if queue is not None:
                queue.put_nowait(event)
                if isinstance(event, END):
                    del self._queues[name]

    def _on_events(self, events: Events) -> None:
        self._loop.call_soon_threadsafe(self._deliver, events)

    def _on_fault(self, problem: str) -> None:
        self._problem = problem
        failed = Failed("engine", problem)
        self._loop.call_soon_threadsafe(lambda: self._deliver([(name, failed) for name in self._queues]))
