"""The memory budget of an engine: one number of bytes for task prefixes, heads, LoRA weights, cached texts and running sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import psutil
import torch

_DEFAULT = 4 << 30  # at most, where nobody says otherwise
_SHARE = 0.5  # of the memory that is free now


def default_memory(device: torch.device) -> int:
    """Bytes for an engine on a device: half of what is free, and at most 4 GiB."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return min(_DEFAULT, int(_SHARE * free))


@dataclass(frozen=True)
class Evictor:
    """Something that holds bytes which nobody reads: how many, and a call that frees the least recently used part."""

    evictable: Callable[[], int]
    evict: Callable[[], None]


@final
class MemoryBudget:
    """Bytes in use of a total. When too few are free, `evictors` free what nobody reads, the first of them as long as it has something."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self.evictors: list[Evictor] = []

    def make_room(self, num_bytes: int) -> bool:
        """Evict until so many bytes are free; False, with nothing evicted, if they cannot be."""
        if self.total - self.used >= num_bytes:
            return True
        if self.total - self.used + sum(each.evictable() for each in self.evictors) < num_bytes:
            return False
        while self.total - self.used < num_bytes:
            next(each for each in self.evictors if each.evictable()).evict()
        return True

    def take(self, num_bytes: int) -> None:
        """Use bytes, for which there is room."""
        self.used += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """The bytes are free again."""
        self.used -= num_bytes

    def check(self) -> None:
        """Raise AssertionError if the counts do not add up."""
        assert 0 <= self.used <= self.total, f"{self.used} bytes are in use, but the budget is {self.total}"
