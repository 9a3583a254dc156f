"""Which tasks a store has, and which version of each is the one to serve; no tensors, no models."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

from foreword.adapters.folder import check_name
from foreword.adapters.store import AdapterStore
from foreword.errors import AdapterError, ForewordError
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
    has_lora: bool = False


@dataclass(frozen=True)
class RegisteredTask:
    """A task's newest readable version, and what is wrong with the one on disk, if it cannot be served."""

    version: Version | None = None
    mark: str = ""
    problem: str | None = None


ABSENT = RegisteredTask()


@final
class Registry:
    """Tasks by name. May be used from several threads; reading a manifest blocks only its caller.

    Whatever is wrong with one folder is the `problem` of its task, never an error of the whole; one whose name is not valid is no task.
    """

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
        """Read what is new or changed in the store, and return the names of tasks whose version changed or that have gone.

        Raises AdapterError if the store cannot be read.
        """
        found = {name for name in self.store.names() if _is_valid(name)}
        with self._lock:
            gone = [name for name in self._entries if name not in found]
            for name in gone:
                del self._entries[name]
        changed = [name for name in found if self._stale(name) and self._read(name, listed=True)]
        return sorted([*gone, *changed])

    def entry(self, name: str) -> RegisteredTask:
        """A task's version and problem at one moment, `ABSENT` for a name that the store does not have."""
        return self._entries.get(name, ABSENT)

    def current(self, name: str) -> Version | None:
        """The version that is served now, without looking at the store."""
        return self.entry(name).version

    def problem(self, name: str) -> str | None:
        """What is wrong with the adapter on disk, if anything is."""
        return self.entry(name).problem

    def newest(self, name: str) -> Version:
        """The version on disk now; raises AdapterError with what is wrong with it."""
        if self._stale(name):
            self._read(name)
        entry = self.entry(name)
        if entry.version is None or entry.problem:
            raise AdapterError(entry.problem or f"the task '{name}' does not exist; list the store's tasks.")
        return entry.version

    def mark_broken(self, key: AdapterKey, problem: str) -> None:
        """Note that a version cannot be served; it is refused until its folder changes."""
        with self._lock:
            entry = self._entries.get(key.task, ABSENT)
            if entry.version and entry.version.key == key:
                self._entries[key.task] = replace(entry, version=None, problem=problem)

    def _stale(self, name: str) -> bool:
        entry = self._entries.get(name)
        try:
            return entry is None or self.store.mark(name) != entry.mark
        except Exception:  # reading it says what is wrong
            return True

    def _read(self, name: str, *, listed: bool = False) -> bool:
        """Read a manifest; whether the version changed. A folder that is `listed` is there, even if nothing of it can be read."""
        version, mark, problem = None, "", None
        try:
            mark = self.store.mark(name)
            manifest, digest = self.store.version(name)
            task = task_from_dict(manifest.task)
            columns, kind = tuple(str(column) for column in task.columns), str(manifest.task["kind"])
            version = Version(
                AdapterKey(name, digest),
                mark,
                kind,
                manifest.base,
                columns,
                manifest.size,
                task.conversation,
                manifest.recipe.lora is not None,
            )
        except AdapterError as error:
            problem = error.request_message
        except Exception as error:  # a manifest may hold anything
            why = str(error).rstrip(".") if isinstance(error, ForewordError) else f"{type(error).__name__}: {error}"
            problem = f"adapter '{self.store.url}/{name}' has a task that cannot be read ({why}); copy the adapter again or retrain."
        with self._lock:
            old = self._entries.get(name, ABSENT)
            if old == ABSENT and not mark and not listed:
                return False  # there is no such folder: nothing to remember
            # a broken replacement leaves the old version in service while it is in memory
            self._entries[name] = entry = RegisteredTask(version or old.version, mark, problem)
        return old.version is None or entry.version is None or old.version.key != entry.version.key


def _is_valid(name: str) -> bool:
    try:
        check_name(name)
    except AdapterError:
        return False
    return True
