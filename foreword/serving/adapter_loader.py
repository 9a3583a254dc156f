"""Loads adapters in other threads, so that no step waits for a disk."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import AdapterError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.registry import Registry


@final
class AdapterLoader:
    """Reads tasks, each once for any number of requests; `busy` are those being read, `count` those read so far."""

    def __init__(self, model: FrozenModel, registry: Registry, *, threads: int = 2) -> None:
        self.model, self.registry = model, registry
        self.busy: dict[AdapterKey, Future[LoadedTask]] = {}
        self.count = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="foreword-load")

    def read(self, key: AdapterKey) -> Future[LoadedTask]:
        """The task of a version, or of the newer one that has replaced it; its errors are AdapterError and ModelError."""
        found = self.busy.get(key)
        if found is None:
            found = self.busy[key] = self._threads.submit(self._read, key)
            found.add_done_callback(lambda _: self.busy.pop(key, None))
        return found

    def _read(self, key: AdapterKey) -> LoadedTask:
        for _ in range(3):
            version = self.registry.newest(key.task)
            adapter = self.registry.store.load(key.task)
            if self.registry.newest(key.task) == version:  # else it was replaced between the two
                self.count += 1
                return LoadedTask.of(self.model, adapter, version.key)
        raise AdapterError(f"adapter '{self.registry.store.path(key.task)}' was replaced three times while it was being read; try again.")

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
