"""The slot allocator: which slots of the paged KV cache are in use (vLLM's block pool, counted in tokens)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import final

from foreword.backbone.kv_cache import NULL_SLOT, PagedKVCache
from foreword.serving.memory_budget import MemoryBudget


@final
class SlotAllocator:
    """Free slots, lowest first, so that memory that was never used stays untouched. Slots count in a memory budget."""

    def __init__(self, cache: PagedKVCache, budget: MemoryBudget) -> None:
        self._slot_bytes, self._budget = cache.slot_bytes, budget
        self._next = NULL_SLOT + 1  # slots from here on were never used
        self._free: list[int] = []

    @property
    def num_used(self) -> int:
        """Slots in use."""
        return self._next - NULL_SLOT - 1 - len(self._free)

    def allocate(self, count: int) -> tuple[int, ...] | None:
        """So many slots, not always adjacent, or None if there is no room even after evictions."""
        if not self._budget.make_room(count * self._slot_bytes):
            return None
        self._budget.take(count * self._slot_bytes)
        found = [heapq.heappop(self._free) for _ in range(min(count, len(self._free)))]
        fresh = count - len(found)
        found.extend(range(self._next, self._next + fresh))
        self._next += fresh
        return tuple(found)

    def free(self, slots: Iterable[int]) -> None:
        """Give slots back."""
        for slot in slots:
            heapq.heappush(self._free, slot)
            self._budget.give_back(self._slot_bytes)

    def check(self) -> None:
        """Raise AssertionError if a slot is free twice, or was never allocated."""
        assert len(set(self._free)) == len(self._free), "a slot is free twice"
        assert all(NULL_SLOT < slot < self._next for slot in self._free), "a free slot was never allocated"
