"""Which tasks a store has, and which version of each is the one to serve; no tensors, no models."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from foreword.adapters.store import AdapterStore
from foreword.errors import AdapterError
from foreword.serving.adapter_cache import AdapterKey
from foreword.tasks.registry import task_from_dict


@dataclass(frozen=True)
class Version:
    """What a manifest says of one version of a task; `mark` tells cheaply that the folder is still the same."""

    key: AdapterKey
    mark: str
    kind: str
    base: str
    columns: tuple[str, ...]
    num_bytes: int
    conversation: str


@dataclass
class RegisteredTask:
    """A task's newest readable version, and what is wrong with the one on disk, if it cannot be served."""

    version: Version | None = None
    mark: str = ""
    problem: str | None = None


@final
class Registry:
    """Tasks by name. May be used from several threads; reading a manifest blocks only its caller."""

    def __init__(self, store: AdapterStore) -> None:
        self.store = store
        self._entries: dict[str, RegisteredTask] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[str, RegisteredTask]]:
        with self._lock:
            return iter(sorted(self._entries.items()))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def scan(self) -> Sequence[str]:
        """Read what is new or changed in the store, and return the names of tasks whose version changed or that have gone."""
        found = set(self.store.names())
        with self._lock:
            gone = [name for name in self._entries if name not in found]
            for name in gone:
                del self._entries[name]
        changed = [name for name in found if self._stale(name) and self._read(name)]
        return sorted([*gone, *changed])

    def current(self, name: str) -> Version | None:
        """The version that is served now, without looking at the store."""
        entry = self._entries.get(name)
        return entry.version if entry else None

    def problem(self, name: str) -> str | None:
        """What is wrong with the adapter on disk, if anything is."""
        entry = self._entries.get(name)
        return entry.problem if entry else None

    def newest(self, name: str) -> Version:
        """The version on disk now; raises AdapterError with what is wrong with it."""
        if self._stale(name):
            self._read(name)
        entry = self._entries.get(name)
        if entry is None or entry.version is None or entry.problem:
            raise AdapterError(entry.problem if entry and entry.problem else f"the task '{name}' does not exist; list the store's tasks.")
        return entry.version

    def mark_broken(self, key: AdapterKey, problem: str) -> None:
        """Note that a version cannot be served; it is refused until its folder changes."""
        with self._lock:
            entry = self._entries.get(key.task)
            if entry and entry.version and entry.version.key == key:
                entry.version, entry.problem = None, problem

    def _stale(self, name: str) -> bool:
        entry = self._entries.get(name)
        try:
            return entry is None or self.store.mark(name) != entry.mark
        except AdapterError:
            return True

    def _read(self, name: str) -> bool:
        """Read a manifest; whether the version changed."""
        entry = RegisteredTask()
        try:
            entry.mark = self.store.mark(name)
            manifest, digest = self.store.version(name)
            task = task_from_dict(manifest.task)
            key = AdapterKey(name, digest)
            entry.version = Version(
                key, entry.mark, manifest.task["kind"], manifest.base, tuple(task.columns), manifest.size, task.conversation
            )
        except AdapterError as error:
            entry.problem = str(error)
        with self._lock:
            old = self._entries.get(name) or RegisteredTask()
            if old == RegisteredTask() and not entry.mark:
                return False  # there is no such folder: nothing to remember
            entry.version = entry.version or old.version  # a broken replacement leaves the old version in service while it is in memory
            self._entries[name] = entry
        return old.version is None or entry.version is None or old.version.key != entry.version.key
