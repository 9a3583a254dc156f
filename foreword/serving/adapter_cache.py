"""The adapter cache: which adapters are in memory, without tensors; one entry for each version of a task, however many requests read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from foreword.errors import CapacityError


@dataclass(frozen=True)
class AdapterKey:
    """A version of a task: its name and the digest of its adapter."""

    task: str
    digest: str


@dataclass
class CachedAdapter:
    """One adapter in memory; `refs` are the ids of the requests that read it."""

    key: AdapterKey
    num_bytes: int
    pinned: bool = False
    refs: set[str] = field(default_factory=set)
    last_used: int = 0

    @property
    def evictable(self) -> bool:
        """Whether it can be evicted: no request reads it and it is not pinned."""
        return not self.refs and not self.pinned


@final
class AdapterCache:
    """Adapters within a budget of bytes; the least recently used are evicted first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: dict[AdapterKey, CachedAdapter] = {}
        self._clock = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all adapters in memory."""
        return sum(entry.num_bytes for entry in self._entries.values())

    def __contains__(self, key: AdapterKey) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[CachedAdapter]:
        return iter(self._entries.values())

    def add(self, key: AdapterKey, num_bytes: int, *, pinned: bool = False) -> list[AdapterKey]:
        """Add an adapter, and return those that were evicted for it.

        Raises CapacityError, and changes nothing, if it does not fit even after evicting everything evictable.
        """
        if key in self._entries:
            entry = self._entries[key]
            entry.pinned = entry.pinned or pinned
            return []
        evicted = self._to_evict(num_bytes)
        if evicted is None:
            held = sum(entry.num_bytes for entry in self._entries.values() if not entry.evictable)
            raise CapacityError(
                f"the prefix of task '{key.task}' needs {num_bytes:,} bytes, but {held:,} of the {self.budget:,} for prefixes are in use; "
                "try again later, unpin a task, or give the server more memory for prefixes."
            )
        for old in evicted:
            del self._entries[old]
        self._entries[key] = CachedAdapter(key, num_bytes, pinned, last_used=self._tick())
        return evicted

    def acquire(self, key: AdapterKey, request_id: str) -> None:
        """Note a request that reads an adapter, which stays until the request releases it."""
        entry = self._entries[key]
        assert request_id not in entry.refs, "a request acquires its adapter once"
        entry.refs.add(request_id)
        entry.last_used = self._tick()

    def release(self, key: AdapterKey, request_id: str) -> None:
        """The request has ended."""
        self._entries[key].refs.remove(request_id)
        self._entries[key].last_used = self._tick()

    def pin(self, key: AdapterKey, pinned: bool = True) -> None:
        """Keep an adapter in memory, or let it be evicted again."""
        self._entries[key].pinned = pinned

    def remove(self, key: AdapterKey) -> bool:
        """Remove an adapter unless requests read it; True if it was removed, pinned or not: its task was unloaded or replaced."""
        if self._entries[key].refs:
            self._entries[key].pinned = False
            return False
        del self._entries[key]
        return True

    def check(self) -> None:
        """Raise AssertionError if the counts do not add up."""
        assert self.num_bytes <= self.budget, f"{self.num_bytes} bytes are in memory, but the budget is {self.budget}"
        assert all(entry.num_bytes >= 0 and entry.key == key for key, entry in self._entries.items()), "an entry is not what its key says"

    def _to_evict(self, num_bytes: int) -> list[AdapterKey] | None:
        """The fewest least recently used adapters whose eviction is enough, or None if no eviction is."""
        missing = self.num_bytes + num_bytes - self.budget
        evicted: list[AdapterKey] = []
        for entry in sorted((entry for entry in self if entry.evictable), key=lambda entry: entry.last_used):
            if missing <= 0:
                break
            evicted.append(entry.key)
            missing -= entry.num_bytes
        return evicted if missing <= 0 else None

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
