"""The slot table of a sequence: where its keys and values are in the paged KV cache (vLLM's block table)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np


@dataclass(frozen=True)
class PrefixSlots:
    """The slots of a task's prefix; `pinned` says that no sliding window leaves it behind."""

    slots: tuple[int, ...] = ()
    pinned: bool = False


@final
@dataclass(eq=False)
class SlotTable:
    """Slots in the order in which they are read, their positions, and which of them no sliding window leaves behind. It grows at its end."""

    prefix: PrefixSlots = field(default_factory=PrefixSlots)

    def __post_init__(self) -> None:
        self._slots = np.empty(0, np.int64)
        self.length = 0
        self.extend(self.prefix.slots)

    @property
    def first(self) -> int:
        """Index of the first token that is not the prefix's."""
        return len(self.prefix.slots)

    def extend(self, slots: Sequence[int]) -> None:
        """Add slots behind the last."""
        if self.length + len(slots) > len(self._slots):
            grown = np.empty(max(2 * len(self._slots), self.length + len(slots), 64), np.int64)
            grown[: self.length] = self._slots[: self.length]
            self._slots = grown
        self._slots[self.length : self.length + len(slots)] = slots
        self.length += len(slots)

    def slots(self, end: int | None = None) -> np.ndarray:
        """The first `end` slots, or all."""
        return self._slots[: self.length if end is None else end]

    def positions(self, end: int) -> np.ndarray:
        """The positions of the first `end` tokens."""
        return np.arange(end)

    def pinned(self, end: int) -> np.ndarray:
        """Which of the first `end` tokens stay visible in every sliding window."""
        return np.arange(end) < (self.first if self.prefix.pinned else 0)
