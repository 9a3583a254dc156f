"""Requests that have not begun, or were preempted: by who asks (tenant), in order of arrival, and by the task that must be loaded first."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, final

from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.request import Done, Event, Failed, Request
from foreword.serving.sequence import Sequence


@dataclass(eq=False)
class WaitingRequest:
    """A request that waits; `emit` takes its events, `key` is the version of its task, `sequence` is it once it has been read."""

    request: Request
    key: AdapterKey | None
    emit: Callable[[Event], None]
    arrival: int
    sequence: Sequence | None = None


Name = TypeVar("Name", str, AdapterKey)
Tasks = Mapping[AdapterKey, LoadedTask]


@final
class WaitingRequests:
    """First come, first served for each tenant. `generating` and `pooling` hold those whose task is in memory, or was when they came; `parked` the others."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.generating: dict[str, list[WaitingRequest]] = {}
        self.pooling: dict[str, list[WaitingRequest]] = {}
        self.parked: dict[AdapterKey, list[WaitingRequest]] = {}

    def __iter__(self) -> Iterator[WaitingRequest]:
        for queues in (self.generating, self.pooling, self.parked):
            for entries in queues.values():
                yield from entries

    def __len__(self) -> int:
        return sum(len(entries) for queues in (self.generating, self.pooling, self.parked) for entries in queues.values())

    def add(self, entry: WaitingRequest) -> None:
        """Let a request wait, for its task if that is not in memory."""
        task = None if entry.key is None else self._tasks.get(entry.key)
        if entry.key is not None and task is None:
            self.parked.setdefault(entry.key, []).append(entry)
            return
        queues = self.generating if task is None or task.generates else self.pooling
        bisect.insort(queues.setdefault(entry.request.tenant, []), entry, key=lambda each: each.arrival)

    def first(self, queues: dict[str, list[WaitingRequest]], tenant: str) -> WaitingRequest | None:
        """A tenant's first request whose task is in memory; those before it wait for theirs again."""
        while entries := queues.get(tenant):
            entry = entries[0]
            if entry.key is None or entry.key in self._tasks:
                return entry
            self.remove(entry)
            self.add(entry)
        return None

    def remove(self, entry: WaitingRequest) -> None:
        """Take a request out."""
        for queues in (self.generating, self.pooling):
            _remove(queues, entry.request.tenant, entry)
        if entry.key is not None:
            _remove(self.parked, entry.key, entry)

    def installed(self, key: AdapterKey) -> None:
        """A task has come into memory."""
        for entry in self.parked.pop(key, []):
            self.add(entry)

    def cancel(self, request_id: str) -> WaitingRequest | None:
        """End a request that waits."""
        for entry in self:
            if entry.request.id == request_id:
                self.remove(entry)
                sequence = entry.sequence
                entry.emit(Done("cancelled", *((sequence.num_prompt_tokens, sequence.num_output_tokens) if sequence else (0, 0))))
                return entry
        return None

    def fail(self, key: AdapterKey, failed: Failed) -> None:
        """End all requests that wait for a task which cannot be had."""
        for entry in self.parked.pop(key, []):
            entry.emit(failed)

    def rename(self, old: AdapterKey, new: AdapterKey) -> None:
        """Let requests that wait for a version wait for the one that replaced it."""
        if old != new:
            for entry in self.parked.pop(old, []):
                entry.key = new
                self.add(entry)


def _remove(queues: dict[Name, list[WaitingRequest]], name: Name, entry: WaitingRequest) -> None:
    queue = queues.get(name, [])
    if entry in queue:
        queue.remove(entry)
        if not queue:
            del queues[name]
