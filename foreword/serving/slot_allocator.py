"""Which places of the arena are taken; it grows by need and gives free places again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from foreword.backbone.kv_cache import SharedKVPool


@final
class SlotAllocator:
    """Free places, lowest first, so that the arena stays dense."""

    def __init__(self, arena: SharedKVPool) -> None:
        self._arena = arena
        self._free: list[int] = []

    def take(self, count: int) -> tuple[int, ...]:
        """So many places, any; the arena grows where too few are free."""
        missing = count - len(self._free)
        if missing > 0:
            begin = self._arena.capacity
            room = max(missing, begin // 16)  # a sixteenth more than needed, so that a thousand tasks are not copied a thousand times
            self._arena.resize(begin + room)
            self._free.extend(range(begin, begin + room))
        self._free.sort()
        taken, self._free = self._free[:count], self._free[count:]
        return tuple(taken)

    def free(self, places: Iterable[int]) -> None:
        self._free.extend(places)

    def check(self) -> None:
        """Raise AssertionError if the books do not balance."""
        assert len(set(self._free)) == len(self._free), "a place is free twice"
        assert all(0 <= place < self._arena.capacity for place in self._free), "a free place is outside the arena"
