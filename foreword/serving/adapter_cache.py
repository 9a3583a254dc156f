"""The adapter cache: which adapters are in memory, without tensors; one entry for each version of a task, however many requests read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final


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
    """Adapters in memory; the least recently used are evicted first."""

    def __init__(self) -> None:
        self._entries: dict[AdapterKey, CachedAdapter] = {}
        self._clock = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all adapters in memory."""
        return sum(entry.num_bytes for entry in self)

    @property
    def evictable_bytes(self) -> int:
        """Bytes of those that can be evicted."""
        return sum(entry.num_bytes for entry in self if entry.evictable)

    def __contains__(self, key: AdapterKey) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[CachedAdapter]:
        return iter(self._entries.values())

    def add(self, key: AdapterKey, num_bytes: int, *, pinned: bool = False) -> None:
        """Add an adapter for which there is memory."""
        self._entries[key] = CachedAdapter(key, num_bytes, pinned, last_used=self._tick())

    def evict(self) -> CachedAdapter:
        """Remove the least recently used adapter that can be evicted, of which there must be one."""
        oldest = min((entry for entry in self if entry.evictable), key=lambda entry: entry.last_used)
        return self._entries.pop(oldest.key)

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

    def remove(self, key: AdapterKey) -> CachedAdapter | None:
        """Remove an adapter, pinned or not, as its task was unloaded or replaced; None while requests read it."""
        if self._entries[key].refs:
            self._entries[key].pinned = False
            return None
        return self._entries.pop(key)

    def check(self) -> None:
        """Raise AssertionError if the entries are wrong."""
        assert all(entry.num_bytes >= 0 and entry.key == key for key, entry in self._entries.items()), "an entry is not what its key says"

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
