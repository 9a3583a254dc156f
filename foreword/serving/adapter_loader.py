"""Loads adapters in other threads, so that no step waits for a disk."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import final

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import AdapterError, CapacityError, ForewordError, ServingError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.registry import Registry

CLOSE_SECONDS = 5.0  # for reads that have begun; a disk that does not answer holds up no exit


@final
class AdapterLoader:
    """Reads tasks, each once for any number of requests; `busy` are those being read, `count` those read so far.

    A read that fails is its own callers' error: AdapterError or ModelError for what is on disk, ServingError for this machine's trouble.
    `max_bytes` is the largest file that can fit in memory: a larger one is never read.
    """

    def __init__(self, model: FrozenModel, registry: Registry, *, threads: int = 2, max_bytes: int | None = None) -> None:
        self.model, self.registry, self.max_bytes = model, registry, max_bytes
        self.busy: dict[AdapterKey, Future[LoadedTask]] = {}
        self.count = 0
        self._lock = threading.Lock()
        self._closed: str | None = None
        self._keys: queue.SimpleQueue[AdapterKey | None] = queue.SimpleQueue()
        self._max_threads = threads
        self._threads: list[threading.Thread] = []

    def read(self, key: AdapterKey) -> Future[LoadedTask]:
        """The task of a version, or of the newer one that has replaced it."""
        with self._lock:
            if (found := self.busy.get(key)) is not None:
                return found
            found = Future[LoadedTask]()
            found.set_running_or_notify_cancel()  # many may wait for it, so none of them can cancel it
            if self._closed is not None:
                found.set_exception(ServingError(self._closed))
                return found
            self.busy[key] = found
            self._keys.put(key)
            if len(self._threads) < min(self._max_threads, len(self.busy)):
                self._threads.append(threading.Thread(target=self._work, name="foreword-load", daemon=True))
                self._threads[-1].start()
        return found

    def stop(self, problem: str) -> None:
        """Read no more: whoever waits gets ServingError with the problem at once."""
        with self._lock:
            self._closed = self._closed or problem
            left = list(self.busy.values())
            self.busy.clear()
        for found in left:
            with suppress(InvalidStateError):  # it has ended meanwhile
                found.set_exception(ServingError(problem))

    def close(self) -> None:
        """Stop, and wait a few seconds for reads under way. May be called again."""
        self.stop("the engine is closed and reads no more tasks; use a new one.")
        for _ in self._threads:
            self._keys.put(None)
        for thread in self._threads:
            thread.join(CLOSE_SECONDS / len(self._threads))

    def _work(self) -> None:
        while (key := self._keys.get()) is not None:
            with self._lock:
                found = self.busy.get(key)
            if found is None:  # stopped
                continue
            task, error = None, None
            try:
                task = self._read(key)
            except BaseException as problem:  # whatever it is, somebody waits
                error = self._explained(key, problem)
            with self._lock:
                self.busy.pop(key, None)
                self.count += error is None
            with suppress(InvalidStateError):  # the loader was closed meanwhile
                found.set_result(task) if task is not None else found.set_exception(error)

    def _read(self, key: AdapterKey) -> LoadedTask:
        for _ in range(3):
            version = self.registry.newest(key.task)
            if self.max_bytes is not None and version.num_bytes > self.max_bytes:
                raise CapacityError(
                    f"the adapter of task '{key.task}' has {version.num_bytes:,} bytes, but this engine has memory for {self.max_bytes:,} at most; "
                    "give it more memory."
                )
            adapter = self.registry.store.load(key.task)
            if self.registry.newest(key.task) == version:  # else it was replaced between the two
                return LoadedTask.of(self.model, adapter, version.key)
        raise AdapterError(f"adapter '{self.registry.store.path(key.task)}' was replaced three times while it was being read; try again.")

    def _explained(self, key: AdapterKey, error: BaseException) -> ForewordError:
        """An error as one sentence: trouble of this machine may pass, anything else is the adapter's."""
        if isinstance(error, ForewordError):
            return error
        passes = isinstance(error, MemoryError | OSError | RuntimeError) and not isinstance(error, RecursionError | NotImplementedError)
        kind, cure = (
            (ServingError, "try again later") if passes or not isinstance(error, Exception) else (AdapterError, "save it again or retrain")
        )
        made = kind(f"adapter '{self.registry.store.path(key.task)}' could not be loaded ({type(error).__name__}: {error}); {cure}.")
        made.__cause__ = error
        return made
