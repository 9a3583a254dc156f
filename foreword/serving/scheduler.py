"""The scheduler: who joins, who runs and who waits in each step. No tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import final

from foreword.errors import ForewordError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.adapter_manager import AdapterManager
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.pooling import PoolingRequest
from foreword.serving.prefix_cache import BLOCK_SIZE, PrefixCache
from foreword.serving.request import Done, Event, Failed, Request
from foreword.serving.sequence import Sequence

MAX_PREFILL_TOKENS = (
    4096  # columns × rows of one prefill, so that a burst of long texts neither stalls the running sequences nor fills memory
)
MAX_POOLING = 128  # requests without a generated text that are answered between two tokens of the others

OpenSequence = Callable[[Request, LoadedTask | None, Callable[[Event], None]], Sequence]


@dataclass(frozen=True, eq=False)
class WaitingRequest:
    """A request that has not begun; `emit` takes its events, `key` is the version of its task."""

    request: Request
    key: AdapterKey | None
    emit: Callable[[Event], None]


@dataclass
class SchedulerOutput:
    """What one step does: answer `pooling`, hand `forwarded` to the engines of tasks with weights of their own, and `prefill` new sequences or else `decode` all running ones."""

    prefill: list[Sequence] = field(default_factory=list)
    decode: list[Sequence] = field(default_factory=list)
    pooling: list[PoolingRequest] = field(default_factory=list)
    forwarded: list[WaitingRequest] = field(default_factory=list)


@final
class Scheduler:
    """First come, first served, as far as `max_sequences` and a prefill of bounded size go; a request whose task is not in memory holds nobody up."""

    def __init__(
        self,
        adapters: AdapterManager,
        prefixes: PrefixCache,
        open_sequence: OpenSequence,
        *,
        own_engines: Container[AdapterKey],
        max_sequences: int,
    ) -> None:
        self.adapters, self.prefixes, self.open_sequence, self.own_engines = adapters.cache, prefixes, open_sequence, own_engines
        self.tasks: Mapping[AdapterKey, LoadedTask] = adapters.tasks
        self.max_sequences = max_sequences
        self.waiting: deque[WaitingRequest] = deque()
        self.running: list[Sequence] = []  # sequence i has KV row i

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.running) or any(entry.key is None or entry.key in self.tasks for entry in self.waiting)

    @property
    def missing_tasks(self) -> list[AdapterKey]:
        """Tasks that requests wait for and that are not in memory, in the order of the requests."""
        return list(dict.fromkeys(entry.key for entry in self.waiting if entry.key is not None and entry.key not in self.tasks))

    def add(self, request: Request, key: AdapterKey | None, emit: Callable[[Event], None]) -> None:
        """Put a request at the end of the queue; its task may still have to be installed."""
        self.waiting.append(WaitingRequest(request, key, emit))

    def cancel_waiting(self, request_id: str) -> None:
        """End a request that has not begun."""
        for entry in [entry for entry in self.waiting if entry.request.id == request_id]:
            self.waiting.remove(entry)
            entry.emit(Done("cancelled", 0, 0))

    def fail_waiting(self, key: AdapterKey, failed: Failed) -> None:
        """End all requests that wait for a task which cannot be had."""
        for entry in [entry for entry in self.waiting if entry.key == key]:
            self.waiting.remove(entry)
            entry.emit(failed)

    def rename(self, old: AdapterKey, new: AdapterKey) -> None:
        """Let requests that wait for a version wait for the one that replaced it."""
        if old != new:
            self.waiting = deque(replace(entry, key=new) if entry.key == old else entry for entry in self.waiting)

    def schedule(self) -> SchedulerOutput:
        """Choose what this step does. Requests chosen here no longer wait, and hold their adapters until `release`."""
        output = SchedulerOutput()
        longest = 0  # unread tokens of the longest prompt of this prefill
        for entry in list(self.waiting):
            task = None if entry.key is None else self.tasks.get(entry.key)
            if entry.key is not None and task is None:
                continue
            if task is not None and not task.generates:
                if len(output.pooling) < MAX_POOLING:
                    output.pooling.append(PoolingRequest(entry.request, task, entry.emit))
                    self.waiting.remove(entry)
            elif entry.key is not None and entry.key in self.own_engines:
                self._begin(entry)
                output.forwarded.append(entry)
            elif len(self.running) + len(output.prefill) < self.max_sequences:
                sequence = self._open(entry, task)
                if sequence is None:
                    continue
                longest = max(longest, self._num_uncached(sequence))
                if output.prefill and longest * (len(output.prefill) + 1) > MAX_PREFILL_TOKENS:
                    break
                self._begin(entry)
                output.prefill.append(sequence)
        if not output.prefill:
            output.decode = list(self.running)
        return output

    def release(self, key: AdapterKey | None, request_id: str) -> None:
        """A request that was scheduled has ended."""
        if key is not None:
            self.adapters.release(key, request_id)

    def _begin(self, entry: WaitingRequest) -> None:
        self.waiting.remove(entry)
        if entry.key is not None:
            self.adapters.acquire(entry.key, entry.request.id)

    def _open(self, entry: WaitingRequest, task: LoadedTask | None) -> Sequence | None:
        """The request as a sequence; one that cannot be read fails, and is None."""
        try:
            return self.open_sequence(entry.request, task, entry.emit)
        except ForewordError as error:
            entry.emit(Failed("request", str(error)))
            self.waiting.remove(entry)
            return None

    def _num_uncached(self, sequence: Sequence) -> int:
        """How many tokens of a prompt prefill has to read."""
        return sequence.prompt.num_tokens - BLOCK_SIZE * len(self.prefixes.hit(sequence.root, sequence.cacheable))
