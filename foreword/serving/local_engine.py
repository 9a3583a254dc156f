"""The engine inside this process: one thread runs the model, others read adapters, an event loop submits requests and reads their events."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Sequence
from typing import final

from foreword.adapters.store import AdapterStore
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.errors import AdapterError, CapacityError, ForewordError, ServingError, UsageError
from foreword.serving.adapter_loader import AdapterLoader
from foreword.serving.engine import Stats, TaskCard
from foreword.serving.engine_core import EngineCore
from foreword.serving.engine_thread import STOPPED, EngineThread, Events
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.registry import RegisteredTask, Registry, Version
from foreword.serving.request import END, Event, Failed, Request
from foreword.serving.store_watcher import StoreWatcher

INSTALL_SECONDS = 0.005  # an engine without a step under way needs less
NOT_STARTED = "the engine is not running; start it first."


@final
class LocalEngine:
    """Continuous batching of any tasks of a store over one frozen model. `async with LocalEngine(model, store) as engine:`.

    `max_sequences` sequences run together, `max_waiting` more requests may wait. `memory_bytes` is what tasks, cached texts and running sequences may
    take together; texts are kept for later requests with `prefix_caching`. `pack_weights` keeps a second copy of the weights where that makes products
    faster (bf16 on a CPU).
    `watch` looks for new and changed adapters every so many seconds (0: only when `load` asks).
    Raises ModelError for a model spread over several devices.
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
        pack_weights: bool = True,
        watch: float = 0.0,
    ) -> None:
        self.model = model
        self.registry = Registry(store if isinstance(store, AdapterStore) else AdapterStore(store))
        self.core = EngineCore(
            model, max_sequences=max_sequences, memory_bytes=memory_bytes, prefix_caching=prefix_caching, pack_weights=pack_weights
        )
        self.loader = AdapterLoader(
            model, self.registry, max_bytes=2 * self.core.kv.budget.total + (1 << 20)
        )  # fp32 on disk may be 16 bits in memory
        self.limit = max_sequences + max_waiting
        self.watcher = StoreWatcher(self.registry, watch, self._replace) if watch else None
        self._queues: dict[str, asyncio.Queue[Event]] = {}
        self.thread = EngineThread(self.core, self.loader, self.registry, self._on_events, self._on_fault)
        self._started = self._closed = False
        self._starting = asyncio.Lock()  # a start and a close never overlap
        self._problem: str | None = None

    async def __aenter__(self) -> LocalEngine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Read the store's list and begin, once; raises AdapterError where the store cannot be read, ServingError after `close`."""
        async with self._starting:
            if self._closed:
                raise ServingError(STOPPED)
            if self._started:
                return
            self._loop = asyncio.get_running_loop()
            await asyncio.to_thread(self.registry.scan)
            if any(
                entry.version and entry.version.has_lora for _, entry in self.registry
            ):  # else the first such task's load would hold up answers
                await asyncio.to_thread(importlib.import_module, "foreword.backbone.weights.lora")
            if self._closed:  # meanwhile
                raise ServingError(STOPPED)
            self.thread.start()
            self._started = True
            if self.watcher is not None:
                self.watcher.start()

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Accept no more requests, wait for running ones up to `drain_seconds`, cancel the rest, and stop. May be called again, and before `start`."""
        self._closed = True
        async with self._starting:
            await self._stop(drain_seconds)

    async def _stop(self, drain_seconds: float) -> None:
        if not self._started:
            self.loader.close()
            return
        if self.watcher is not None:
            self.watcher.stop()
        until = self._loop.time() + drain_seconds
        while self._queues and self.thread.alive and self._loop.time() < until:
            await asyncio.sleep(0.02)
        for name in list(self._queues):
            self.cancel(name)
        await asyncio.to_thread(self.thread.stop)
        await asyncio.to_thread(self.loader.close)

    @property
    def info(self) -> ModelInfo:
        """The base model without its weights."""
        return self.model.info

    @property
    def healthy(self) -> bool:
        return self._problem is None and self.thread.alive and (self.watcher is None or self.watcher.alive)

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
            self.thread.cancel(request_id)

    async def load(self, name: str, *, pinned: bool = False) -> TaskCard:
        """Load a task's newest version into memory. Raises AdapterError for adapters that cannot be read, CapacityError if the budget is in use."""
        return await self._load(name, pinned=pinned)

    async def _load(self, name: str, *, pinned: bool = False, wait: bool = True) -> TaskCard:
        """Load a task; without `wait` a CapacityError is raised at once."""
        self._check_running()
        before = self.registry.current(name)
        version = await asyncio.to_thread(self.registry.newest, name)
        if not await self._is_kept(version, pinned):
            await self._install(await asyncio.wrap_future(self.loader.read(version.key)), pinned, wait)
        if before is not None and before.key != version.key:
            await self._retire(before)
        return self._card(name, RegisteredTask(version))

    async def _install(self, task: LoadedTask, pinned: bool, wait: bool) -> None:
        """Install a task, waiting while running requests use the whole budget.

        A task that there is room for waits for no step to end: it is in place before any later request is looked at.
        """
        if not pinned and self.thread.has_room(task.num_bytes):
            installed = asyncio.wrap_future(self.thread.install(task))
            await asyncio.wait([installed], timeout=INSTALL_SECONDS)
            if not installed.done():
                installed.add_done_callback(lambda found: found.cancelled() or found.exception())  # an error is the thread's to log
                return
            if installed.result():
                return
        while not await asyncio.wrap_future(self.thread.install(task, pinned=pinned)):
            if not wait:
                raise CapacityError(f"the task '{task.key.task}' does not fit into memory while requests run; try again later.")
            await asyncio.sleep(0.02)

    async def _retire(self, version: Version) -> None:
        await asyncio.wrap_future(self.thread.call(lambda: self.core.retire(version.key)))

    async def unload(self, name: str) -> None:
        """Remove a task from memory once no request reads it; raises AdapterError for an unknown name."""
        self._check_running()
        version = self.registry.current(name)
        if version is None:
            raise AdapterError(f"The task '{name}' does not exist.")
        await self._retire(version)

    def tasks(self) -> Sequence[TaskCard]:
        """A card for each task of the store."""
        return [self._card(name, entry) for name, entry in self.registry]

    def card(self, name: str) -> TaskCard | None:
        """One task's card, None for a name the store does not have."""
        entry = self.registry.entry(name)
        return None if entry.version is None and entry.problem is None else self._card(name, entry)

    def _card(self, name: str, entry: RegisteredTask) -> TaskCard:
        root, version, problem = self.registry.store.path(name), entry.version, entry.problem
        if version is None:
            return TaskCard(name, "", "", root, "broken", problem=problem)
        state = "resident" if self._in_memory(version) else "loading" if version.key in self.loader.busy else "known"
        facts = (version.columns, version.key.digest, version.num_bytes, problem, version.conversation)
        return TaskCard(name, version.kind, version.base, root, state, *facts)

    async def _is_kept(self, version: Version, pinned: bool) -> bool:
        """Whether a version is in memory, and pinned if that is asked for."""

        def pin() -> bool:
            if found := version.key in self.core.adapters.cache:
                self.core.adapters.cache.pin(version.key)
            return found

        return self._in_memory(version) and (not pinned or await asyncio.wrap_future(self.thread.call(pin)))

    def _in_memory(self, version: Version) -> bool:
        return version.key in self.core.adapters.tasks or version.key in self.thread.installing

    def stats(self) -> Stats:
        """Counts after the last step."""
        counts = self.thread.counts
        return Stats(
            running=counts.running,
            waiting=counts.waiting,
            tasks=len(self.registry),
            resident=counts.resident,
            prefix_bytes=counts.prefix_bytes,
            memory_bytes=counts.memory_bytes,
            memory_budget=self.core.kv.budget.total,
            steps_total=counts.steps,
            loads_total=self.loader.count,
            evictions_total=counts.evictions,
            preemptions_total=counts.preemptions,
            scan_failures_total=self.watcher.num_failures if self.watcher else 0,
            by_task=counts.by_task,
        )

    async def _replace(self, name: str, old: Version) -> None:
        """Bring a task in memory up to date with the store, or remove it; a new version that does not fit now is loaded when it is asked for."""
        if old.key not in self.core.adapters.tasks:
            return
        if name in self.registry:
            with contextlib.suppress(ForewordError):  # its card says what is wrong
                await self._load(name, wait=False)
        await self._retire(old)

    def _check_running(self) -> None:
        if problem := self.thread.ended or (STOPPED if self._closed else None if self._started else NOT_STARTED):
            raise ServingError(problem)

    def _deliver(self, events: Events) -> None:
        for name, event in events:
            queue = self._queues.get(name)
            if queue is not None:
                queue.put_nowait(event)
                if isinstance(event, END):
                    del self._queues[name]

    def _on_events(self, events: Events) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads them
            self._loop.call_soon_threadsafe(self._deliver, events)

    def _on_fault(self, problem: str) -> None:
        self._problem = problem
        failed = Failed("engine", problem)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lambda: self._deliver([(name, failed) for name in self._queues]))
