"""The adapter manager: loads tasks into memory and removes them. The adapter cache counts them, the paged KV cache has their keys and values."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import final

import torch

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import CapacityError
from foreword.serving.adapter_cache import AdapterCache, AdapterKey, CachedAdapter
from foreword.serving.kv_cache_manager import KVCacheManager
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.memory_budget import Evictor
from foreword.serving.slot_table import PrefixSlots

NO_PREFIX = PrefixSlots()


@final
class AdapterManager:
    """`tasks` are those in memory, `prefixes` the slots of their prefixes. Not for several threads."""

    def __init__(self, model: FrozenModel, kv: KVCacheManager) -> None:
        self.model, self.kv = model, kv
        self.cache = AdapterCache()
        self.tasks: dict[AdapterKey, LoadedTask] = {}  # exactly those of the cache
        self.prefixes: dict[AdapterKey, PrefixSlots] = {}
        self._retired: set[AdapterKey] = set()
        self.num_evictions = 0
        kv.budget.evictors.append(Evictor(lambda: self.cache.evictable_bytes, self._evict))

    def prefix(self, key: AdapterKey | None) -> PrefixSlots:
        """The slots of a task's prefix."""
        return NO_PREFIX if key is None else self.prefixes.get(key, NO_PREFIX)

    def install(self, task: LoadedTask, *, pinned: bool = False) -> None:
        """Load a task into memory; texts and other tasks that nobody reads are evicted for it. Raises CapacityError, and changes nothing, if the memory is in use."""
        if task.key in self.tasks:
            if pinned:
                self.cache.pin(task.key)
            return
        budget = self.kv.budget
        if not budget.make_room(task.num_bytes):
            raise CapacityError(
                f"task '{task.key.task}' needs {task.num_bytes:,} bytes, but {budget.used:,} of the engine's {budget.total:,} are in use; "
                "try again later, unpin a task, or give the engine more memory."
            )
        if task.prefix is not None and task.generates:
            slots = self.kv.allocator.allocate(task.prefix.length)
            assert slots is not None, "there is room"
            try:
                self.kv.cache.put(torch.tensor(slots, device=self.model.device), task.prefix)
            except BaseException:
                self.kv.allocator.free(slots)
                raise
            self.prefixes[task.key] = PrefixSlots(slots, pinned=task.prefix.window == "pinned")
        budget.take(self._other_bytes(task.key, task.num_bytes))
        self.cache.add(task.key, task.num_bytes, pinned=pinned)
        self.tasks[task.key] = task.without_prefix()

    def retire(self, key: AdapterKey) -> None:
        """Mark a version for removal at the first `remove_retired` without a request for it."""
        if key in self.cache:
            self._retired.add(key)

    def remove_retired(self, awaited: Callable[[], Container[AdapterKey | None]]) -> None:
        """Remove retired versions that no request reads or waits for; `awaited` is called if there is any."""
        if not self._retired:
            return
        awaited_keys = awaited()
        for key in [key for key in self._retired if key not in awaited_keys]:
            if (removed := self.cache.remove(key)) is not None:
                self._free(removed)

    def _evict(self) -> None:
        self._free(self.cache.evict())
        self.num_evictions += 1

    def _free(self, removed: CachedAdapter) -> None:
        key = removed.key
        del self.tasks[key]
        self.kv.remove(key)
        self.kv.budget.give_back(self._other_bytes(key, removed.num_bytes))
        if key in self.prefixes:
            self.kv.allocator.free(self.prefixes.pop(key).slots)
        self._retired.discard(key)

    def _other_bytes(self, key: AdapterKey, num_bytes: int) -> int:
        """A task's bytes without those of its prefix's slots, which the allocator counts."""
        return num_bytes - len(self.prefix(key).slots) * self.kv.cache.slot_bytes

    def check(self) -> None:
        """Raise AssertionError if the counts and the memory do not agree."""
        self.cache.check()
        assert set(self.tasks) == {entry.key for entry in self.cache}, "a task is in memory that the cache does not know"
        slots = self.kv.allocator.num_used * self.kv.cache.slot_bytes
        other = sum(self._other_bytes(entry.key, entry.num_bytes) for entry in self.cache)
        assert self.kv.budget.used == slots + other, "the budget does not say what is in memory"
