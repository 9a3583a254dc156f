"""The slot allocator: which slots of the shared KV pool are in use (vLLM's block allocator, with blocks of one token)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from foreword.backbone.kv_cache import SharedKVPool


@final
class SlotAllocator:
    """Free slots, lowest first, so that the pool stays dense; it grows by need."""

    def __init__(self, pool: SharedKVPool) -> None:
        self._pool = pool
        self._free: list[int] = []

    def allocate(self, count: int) -> tuple[int, ...]:
        """So many slots, not always adjacent; the pool grows where too few are free."""
        missing = count - len(self._free)
        if missing > 0:
            capacity = self._pool.capacity
            added = max(missing, capacity // 16)  # a sixteenth more than needed, so that a thousand tasks are not copied a thousand times
            self._pool.resize(capacity + added)
            self._free.extend(range(capacity, capacity + added))
        self._free.sort()
        allocated, self._free = self._free[:count], self._free[count:]
        return tuple(allocated)

    def free(self, slots: Iterable[int]) -> None:
        """Give slots back."""
        self._free.extend(slots)

    def check(self) -> None:
        """Raise AssertionError if a slot is free twice, or does not exist."""
        assert len(set(self._free)) == len(self._free), "a slot is free twice"
        assert all(0 <= slot < self._pool.capacity for slot in self._free), "a free slot is outside the pool"
