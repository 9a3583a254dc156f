"""The adapter manager: loads tasks into memory and removes them. The adapter cache counts them, the shared pool has their keys and values."""

from __future__ import annotations

from collections.abc import Container
from typing import final

import torch

from foreword.serving.adapter_cache import AdapterCache, AdapterKey
from foreword.serving.cached_prefill import CachedPrefill
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.model_runner import ModelRunner
from foreword.serving.slot_allocator import SlotAllocator
from foreword.serving.slot_table import SlotTable


@final
class AdapterManager:
    """`tasks` are those in memory, `prefixes` the slots of their prefixes. Not for several threads."""

    def __init__(self, runner: ModelRunner, allocator: SlotAllocator, cached_prefill: CachedPrefill, num_bytes: int) -> None:
        self.runner, self.allocator, self.cached_prefill = runner, allocator, cached_prefill
        self.cache = AdapterCache(num_bytes)
        self.tasks: dict[AdapterKey, LoadedTask] = {}  # exactly those of the cache
        self.prefixes: dict[AdapterKey, SlotTable] = {}
        self._retired: set[AdapterKey] = set()
        self.num_evictions = 0

    def install(self, task: LoadedTask, *, pinned: bool = False) -> None:
        """Load a task into memory; others are evicted for it. Raises CapacityError if the budget is in use."""
        if task.key in self.tasks:
            self.cache.pin(task.key, pinned)
            return
        for evicted in self.cache.add(task.key, task.num_bytes, pinned=pinned):
            self._free(evicted)
            self.num_evictions += 1
        model = self.runner.model
        if task.prefix is not None and task.generates and task.model is model:
            slots = self.allocator.allocate(task.prefix.length)
            self.runner.kv_pool.put(torch.tensor(slots, device=model.device), task.prefix)
            pinned_in_window = task.prefix.window == "pinned"
            self.prefixes[task.key] = SlotTable(slots, tuple(range(len(slots))), (pinned_in_window,) * len(slots))
        self.tasks[task.key] = task.without_prefix()

    def retire(self, key: AdapterKey) -> None:
        """Mark a version for removal at the first `remove_retired` without a request for it."""
        if key in self.cache:
            self._retired.add(key)

    def remove_retired(self, awaited: Container[AdapterKey | None]) -> None:
        """Remove retired versions that no request reads or waits for."""
        for key in [key for key in self._retired if key not in awaited]:
            if self.cache.remove(key):
                self._free(key)

    def _free(self, key: AdapterKey) -> None:
        del self.tasks[key]
        self.cached_prefill.remove(key)
        if key in self.prefixes:
            self.allocator.free(self.prefixes.pop(key).slots)
        self._retired.discard(key)

    def check(self) -> None:
        """Raise AssertionError if the counts and the memory do not agree."""
        self.cache.check()
        self.allocator.check()
        self.cached_prefill.cache.check()
        slots = [slot for table in self.prefixes.values() for slot in table.slots] + self.cached_prefill.slots
        assert len(set(slots)) == len(slots), "two stored tokens share a slot"
        assert set(self.tasks) == {entry.key for entry in self.cache}, "a task is in memory that the cache does not know"
