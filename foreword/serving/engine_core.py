"""The engine's heart, without threads: requests join between steps, all sequences grow together, each event goes to its request at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from foreword.backbone.attention.cascade_attention import SharedContext
from foreword.backbone.frozen import FrozenModel
from foreword.errors import ForewordError
from foreword.prompts.template import Row
from foreword.serving.adapter_cache import AdapterCache, Key
from foreword.serving.cached_prefill import CachedPrefill
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.model_runner import ModelRunner, Stored
from foreword.serving.pooling import Whole, answer
from foreword.serving.request import END, Done, Event, Failed, Request
from foreword.serving.sequence import Sequence as Running
from foreword.serving.sequence import open_sequence
from foreword.serving.slot_allocator import SlotAllocator
from foreword.serving.structured_output import Schemas

Emit = Callable[[Event], None]
PREFILL_TOKENS = 4096  # columns × rows of one prefill, so that a burst of long texts neither stalls the running sequences nor fills memory

VIEW_SEQUENCES = 8  # of a task with weights of its own, which share no batch with others
WHOLE_AT_ONCE = 128  # answers given whole between two tokens of the others


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request that has not begun."""

    request: Request
    key: Key | None
    emit: Emit


@final
class EngineCore:
    """`add`, `cancel` and `install` are called between steps, `step` does one piece of work. Not for several threads."""

    def __init__(self, model: FrozenModel, *, max_sequences: int = 32, prefix_bytes: int = 1 << 30, text_bytes: int = 1 << 28) -> None:
        self.model, self.max_sequences = model, max_sequences
        self.runner = ModelRunner(model, max_sequences=max_sequences)
        self.pool = AdapterCache(prefix_bytes)
        self.places = SlotAllocator(self.runner.arena)
        self.sharing = CachedPrefill(self.runner, self.places, text_bytes)
        self.schemas = Schemas(model.info)
        self.tasks: dict[Key, LoadedTask] = {}  # exactly those of the pool
        self.stored: dict[Key, Stored] = {}
        self.waiting: deque[Waiting] = deque()
        self.running: list[Running] = []
        self.views: dict[Key, EngineCore] = {}  # a task with weights of its own has a core of its own
        self.retired: set[Key] = set()
        self.context: SharedContext | None = None
        self.steps = self.evictions = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return (
            bool(self.running)
            or any(entry.key is None or entry.key in self.tasks for entry in self.waiting)
            or any(view.busy for view in self.views.values())
        )

    @property
    def under_way(self) -> list[Request]:
        """Requests that have begun."""
        inside = [
            request for view in list(self.views.values()) for request in (*view.under_way, *(entry.request for entry in view.waiting))
        ]
        return [*(sequence.request for sequence in list(self.running)), *inside]

    @property
    def wanted(self) -> list[Key]:
        """Tasks that requests wait for and that are not in memory, in the order of the requests."""
        return list(dict.fromkeys(entry.key for entry in self.waiting if entry.key is not None and entry.key not in self.tasks))

    def add(self, request: Request, key: Key | None, emit: Emit) -> None:
        """Take a request in; its events are emitted from `step`. Its task may still have to be installed."""
        self.waiting.append(Waiting(request, key, emit))

    def cancel(self, request_id: str) -> None:
        """End a request where it stands; its place is free at once."""
        for entry in [entry for entry in self.waiting if entry.request.id == request_id]:
            self.waiting.remove(entry)
            entry.emit(Done("cancelled", 0, 0))
        for sequence in [sequence for sequence in self.running if sequence.request.id == request_id]:
            sequence.finish("cancelled")
            self._leave(sequence)
        for view in self.views.values():
            view.cancel(request_id)

    def install(self, task: LoadedTask, *, pinned: bool = False) -> None:
        """Bring a task into memory, for whichever requests wait for it; others leave for it. Raises CapacityError where there is no room."""
        if task.key in self.tasks:
            self.pool.pin(task.key, pinned)
            return
        for gone in self.pool.admit(task.key, task.num_bytes, pinned=pinned):
            self._forget(gone)
            self.evictions += 1
        if task.writes and task.model is not self.model:
            view = self.views[task.key] = EngineCore(task.model, max_sequences=VIEW_SEQUENCES, prefix_bytes=task.num_bytes)
            view.install(task)
        elif task.prefix is not None and task.writes:
            taken = self.places.take(task.prefix.length)
            self.runner.arena.put(torch.tensor(taken, device=self.model.device), task.prefix)
            lasting = task.prefix.window == "pinned"
            self.stored[task.key] = Stored(taken, tuple(range(len(taken))), (lasting,) * len(taken))
        self.tasks[task.key] = task.light()

    def rename(self, old: Key, new: Key) -> None:
        """Have requests that wait for a version wait for the one that took its place."""
        if old != new:
            self.waiting = deque(replace(entry, key=new) if entry.key == old else entry for entry in self.waiting)

    def refuse(self, key: Key, failed: Failed) -> None:
        """End all requests that wait for a task which cannot be had."""
        for entry in [entry for entry in self.waiting if entry.key == key]:
            self.waiting.remove(entry)
            entry.emit(failed)

    def retire(self, key: Key) -> None:
        """Let a version leave memory as soon as nobody reads it any more."""
        if key in self.pool:
            self.retired.add(key)
            self._retire_free()

    def step(self) -> None:
        """Let waiting requests join, then grow every sequence by a token. A fault fails this step's requests and no others."""
        self.steps += 1
        joining, whole = self._admit()
        if whole:
            answer(self.model, whole)
        if joining:
            self._guarded(joining, lambda: self._prefill(joining))
        elif self.running:
            self._guarded(list(self.running), self._decode)
        for view in self.views.values():
            if view.busy:
                view.step()
        self._retire_free()

    def _forget(self, key: Key) -> None:
        del self.tasks[key]
        self.views.pop(key, None)
        self.sharing.forget(key)
        if key in self.stored:
            self.places.free(self.stored.pop(key).places)
        self.retired.discard(key)

    def _retire_free(self) -> None:
        for key in [key for key in self.retired if not any(entry.key == key for entry in self.waiting)]:
            if self.pool.drop(key):
                self._forget(key)

    def _admit(self) -> tuple[list[Running], list[Whole]]:
        """Requests that join now, in the order of their arrival, as far as places go; and those that are answered at once.

        A request whose task is not in memory yet holds nobody up.
        """
        joining: list[Running] = []
        whole: list[Whole] = []
        widest = 0
        for entry in list(self.waiting):
            task = None if entry.key is None else self.tasks.get(entry.key)
            if entry.key is not None and task is None:
                continue
            if task is not None and not task.writes:
                if len(whole) < WHOLE_AT_ONCE:
                    whole.append(Whole(entry.request, task, entry.emit))
                    self.waiting.remove(entry)
                continue
            if entry.key in self.views:
                self._lend(entry, entry.key)
                continue
            if len(self.running) + len(joining) >= self.max_sequences:
                continue
            try:
                sequence = open_sequence(entry.request, task, self.model, self.schemas, entry.emit)
            except ForewordError as error:
                entry.emit(Failed("request", str(error)))
                self.waiting.remove(entry)
                continue
            if task is not None:
                sequence.stored = self.stored.get(task.key, Stored())
            width = max(widest, self.sharing.unread(sequence))
            if joining and width * (len(joining) + 1) > PREFILL_TOKENS:
                break
            widest = width
            if task is not None:
                self.pool.acquire(task.key, entry.request.id)
            joining.append(sequence)
            self.waiting.remove(entry)
        return joining, whole

    def _lend(self, entry: Waiting, key: Key) -> None:
        """Hand a request to the core of a task with weights of its own; the task stays in memory until it has ended."""
        name = entry.request.id

        def emit(event: Event) -> None:
            if isinstance(event, END):
                self.pool.release(key, name)
            entry.emit(event)

        self.waiting.remove(entry)
        self.pool.acquire(key, name)
        self.views[key].add(entry.request, key, emit)

    def _prefill(self, joining: list[Running]) -> None:
        first = len(self.running)
        self.sharing.share(joining, first)
        rows: list[Row] = [sequence.row for sequence in joining]
        soft = [sequence.soft for sequence in joining]
        logits, counts, offset = self.runner.prefill(rows, soft, [sequence.stored for sequence in joining], first)
        self.running.extend(joining)
        for sequence, count, begin in zip(joining, counts, offset, strict=True):
            sequence.length, sequence.offset = count, begin
        self._recount()
        self._grow(joining, logits)

    def _decode(self) -> None:
        device = self.model.device
        last = torch.tensor([sequence.tokens[-1] for sequence in self.running], device=device)
        starts = torch.tensor([sequence.length for sequence in self.running], device=device)
        offset = torch.tensor([sequence.offset for sequence in self.running], device=device)
        self.runner.fit(int(starts.max()) + 1)
        logits = self.runner.decode(last, self.context, starts, offset)
        for sequence in self.running:
            sequence.length += 1
        self._grow(list(self.running), logits)

    def _grow(self, sequences: Sequence[Running], logits: Tensor) -> None:
        """Give each sequence its next token; those that end leave."""
        likeliest = logits.argmax(-1).tolist()
        ended = [sequence for index, sequence in enumerate(sequences) if sequence.grow(likeliest[index], logits[index])]
        for sequence in ended:
            self._leave(sequence)

    def _leave(self, sequence: Running) -> None:
        """Free a sequence's place: the last one moves into it, so that the others stand together."""
        slot, last = self.running.index(sequence), len(self.running) - 1
        if slot != last:
            self.runner.slots.move(last, slot, self.running[last].length)
            self.running[slot] = self.running[last]
        self.running.pop()
        self._release(sequence)
        self._recount()

    def _release(self, sequence: Running) -> None:
        self.sharing.release(sequence)
        if sequence.task is not None:
            self.pool.release(sequence.task.key, sequence.request.id)

    def _recount(self) -> None:
        self.context = self.runner.context([sequence.stored for sequence in self.running])

    def _guarded(self, sequences: list[Running], work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the other requests go on
            for sequence in sequences:
                sequence.emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
                if sequence in self.running:
                    self._leave(sequence)
                else:
                    self._release(sequence)

    def check(self) -> None:
        """Raise AssertionError if the books do not balance."""
        self.pool.check()
        self.places.check()
        self.sharing.check()
        taken = [place for stored in self.stored.values() for place in stored.places] + self.sharing.taken
        assert len(set(taken)) == len(taken), "two of what is stored share a place"
        assert set(self.tasks) == {entry.key for entry in self.pool}, "a task is in memory without a place in the books"
        readers = {reader for entry in self.pool for reader in entry.readers}
        assert readers == {request.id for request in self.under_way if request.task is not None}, "a reader has gone"
        for view in self.views.values():
            view.check()
