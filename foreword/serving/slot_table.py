"""The slot table of a sequence: which tokens of the shared KV pool it reads before its own (vLLM's block table)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SlotTable:
    """Slots in the order in which they are read, their positions, and which of them no sliding window leaves behind."""

    slots: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    pinned: tuple[bool, ...] = ()

    @property
    def end(self) -> int:
        """The position after the last token."""
        return max(self.positions) + 1 if self.positions else 0

    def __add__(self, other: SlotTable) -> SlotTable:
        return SlotTable(self.slots + other.slots, self.positions + other.positions, self.pinned + other.pinned)

    def followed_by(self, slots: tuple[int, ...]) -> SlotTable:
        """The table of tokens that stand behind these; sliding windows may leave them behind."""
        return SlotTable(slots, tuple(range(self.end, self.end + len(slots))), (False,) * len(slots))
