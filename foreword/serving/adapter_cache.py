"""Which prefixes are in memory, without tensors: one entry for each version of a task, however many requests read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from foreword.errors import CapacityError


@dataclass(frozen=True)
class Key:
    """A version of a task: its name and the digest of its adapter."""

    task: str
    digest: str


@dataclass
class Entry:
    """What the pool knows of one prefix."""

    key: Key
    num_bytes: int
    pinned: bool = False
    readers: set[str] = field(default_factory=set)
    used: int = 0

    @property
    def free(self) -> bool:
        """Whether it may leave: nobody reads it and nobody pinned it."""
        return not self.readers and not self.pinned


@final
class AdapterCache:
    """Prefixes within a budget of bytes; the one that nobody has read for longest leaves first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: dict[Key, Entry] = {}
        self._clock = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of everything resident."""
        return sum(entry.num_bytes for entry in self._entries.values())

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def admit(self, key: Key, num_bytes: int, *, pinned: bool = False) -> list[Key]:
        """Take a prefix in, and return those that had to leave for it.

        Raises CapacityError, and changes nothing, where it does not fit although everything free left.
        """
        if key in self._entries:
            entry = self._entries[key]
            entry.pinned = entry.pinned or pinned
            return []
        leaving = self._to_leave(num_bytes)
        if leaving is None:
            held = sum(entry.num_bytes for entry in self._entries.values() if not entry.free)
            raise CapacityError(
                f"the prefix of task '{key.task}' needs {num_bytes:,} bytes, but {held:,} of the {self.budget:,} for prefixes are in use; "
                "try again later, unpin a task, or give the server more memory for prefixes."
            )
        for old in leaving:
            del self._entries[old]
        self._entries[key] = Entry(key, num_bytes, pinned, used=self._tick())
        return leaving

    def acquire(self, key: Key, reader: str) -> None:
        """Note a request that reads a resident prefix; it stays until the request releases it."""
        entry = self._entries[key]
        assert reader not in entry.readers, "a request reads its prefix once"
        entry.readers.add(reader)
        entry.used = self._tick()

    def release(self, key: Key, reader: str) -> None:
        """The request has ended."""
        self._entries[key].readers.remove(reader)
        self._entries[key].used = self._tick()

    def pin(self, key: Key, pinned: bool = True) -> None:
        """Keep a prefix whatever happens, or let it go again."""
        self._entries[key].pinned = pinned

    def drop(self, key: Key) -> bool:
        """Let a prefix leave now if nobody reads it; True if it did. A pin does not hold it: its task was unloaded or replaced."""
        if self._entries[key].readers:
            self._entries[key].pinned = False
            return False
        del self._entries[key]
        return True

    def check(self) -> None:
        """Raise AssertionError if the books do not balance."""
        assert self.num_bytes <= self.budget, f"{self.num_bytes} bytes are resident, but the budget is {self.budget}"
        assert all(entry.num_bytes >= 0 and entry.key == key for key, entry in self._entries.items()), "an entry is not what its key says"

    def _to_leave(self, num_bytes: int) -> list[Key] | None:
        """The fewest least recently used prefixes that make room, or None if all of them do not."""
        missing = self.num_bytes + num_bytes - self.budget
        leaving: list[Key] = []
        for entry in sorted((entry for entry in self if entry.free), key=lambda entry: entry.used):
            if missing <= 0:
                break
            leaving.append(entry.key)
            missing -= entry.num_bytes
        return leaving if missing <= 0 else None

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
