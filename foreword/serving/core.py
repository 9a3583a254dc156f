"""The engine's heart, without threads: requests join between steps, all sequences grow together, each event goes to its request at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from foreword.backbone.frozen import FrozenModel
from foreword.backbone.step import Context
from foreword.errors import CapacityError, ForewordError
from foreword.prompts.template import Row
from foreword.serving.places import Places
from foreword.serving.prefixes import Key, PrefixPool
from foreword.serving.request import Answer, Done, Event, Failed, Request
from foreword.serving.resident import Resident
from foreword.serving.runner import Runner, Stored
from foreword.serving.sequence import Sequence as Running
from foreword.serving.sequence import open_sequence
from foreword.tasks.generate import Generate
from foreword.tasks.judge import predictions

Emit = Callable[[Event], None]
PREFILL_TOKENS = 4096  # columns × rows of one prefill, so that a burst of long texts neither stalls the running sequences nor fills memory


@final
class Core:
    """`add` and `cancel` are called between steps, `step` does one piece of work. Not for several threads."""

    def __init__(self, model: FrozenModel, *, max_sequences: int = 32, prefix_bytes: int = 1 << 30) -> None:
        self.model, self.max_sequences = model, max_sequences
        self.runner = Runner(model, max_sequences=max_sequences)
        self.pool = PrefixPool(prefix_bytes)
        self.places = Places(self.runner.arena)
        self.stored: dict[Key, Stored] = {}
        self.waiting: deque[tuple[Request, Resident | None, Emit]] = deque()
        self.running: list[Running] = []
        self.context: Context | None = None
        self.steps = 0

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request, task: Resident | None, emit: Emit) -> None:
        """Take a request in; its events are emitted from `step`."""
        self.waiting.append((request, task, emit))

    def cancel(self, request_id: str) -> None:
        """End a request where it stands; its place is free at once."""
        for entry in [entry for entry in self.waiting if entry[0].id == request_id]:
            self.waiting.remove(entry)
            entry[2](Done("cancelled", 0, 0))
        for sequence in [sequence for sequence in self.running if sequence.request.id == request_id]:
            sequence.finish("cancelled")
            self._leave(sequence)

    def step(self) -> None:
        """Let waiting requests join, then grow every sequence by a token. A fault fails this step's requests and no others."""
        self.steps += 1
        joining, whole = self._admit()
        if whole:
            self._answer(whole)
        if joining:
            self._guarded(joining, lambda: self._prefill(joining))
        elif self.running:
            self._guarded(list(self.running), self._decode)

    def drop(self, key: Key) -> bool:
        """Forget a version's prefix if nobody reads it any more."""
        if key in self.pool and self.pool.drop(key):
            self.places.free(self.stored.pop(key).places)
            return True
        return key not in self.pool

    def _admit(self) -> tuple[list[Running], list[tuple[Request, Resident, Emit]]]:
        """Requests that join now, in the order of their arrival, as far as places and memory go; and those that are answered at once."""
        joining: list[Running] = []
        whole: list[tuple[Request, Resident, Emit]] = []
        widest = 0
        while self.waiting:
            request, task, emit = self.waiting[0]
            if task is not None and not isinstance(task.task, Generate):
                whole.append((request, task, emit))
                self.waiting.popleft()
                continue
            if len(self.running) + len(joining) >= self.max_sequences:
                break
            try:
                sequence = open_sequence(request, task, self.model, emit)
                width = max(widest, sequence.row.num_tokens)
                if joining and width * (len(joining) + 1) > PREFILL_TOKENS:
                    break
                self._place(sequence)
            except CapacityError:
                if self.running or joining:
                    break  # somebody will leave
                emit(Failed("capacity", f"the prefix of task '{request.task}' does not fit in the memory for prefixes; give it more."))
                self.waiting.popleft()
                continue
            except ForewordError as error:
                emit(Failed("request", str(error)))
                self.waiting.popleft()
                continue
            widest = width
            joining.append(sequence)
            self.waiting.popleft()
        return joining, whole

    def _place(self, sequence: Running) -> None:
        """See to it that the sequence's prefix is in memory, and note that it is read. Raises CapacityError where there is no room."""
        task = sequence.task
        if task is None or task.prefix is None:
            return
        if task.key not in self.pool:
            for gone in self.pool.admit(task.key, task.num_bytes):
                self.places.free(self.stored.pop(gone).places)
            taken = self.places.take(task.prefix.length)
            self.runner.arena.put(torch.tensor(taken, device=self.model.device), task.prefix)
            pinned = task.prefix.window == "pinned"
            self.stored[task.key] = Stored(taken, tuple(range(len(taken))), (pinned,) * len(taken))
        self.pool.acquire(task.key, sequence.request.id)
        sequence.stored = self.stored[task.key]

    def _prefill(self, joining: list[Running]) -> None:
        first = len(self.running)
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
        if sequence.task is not None and sequence.task.prefix is not None:
            self.pool.release(sequence.task.key, sequence.request.id)
        self._recount()

    def _recount(self) -> None:
        self.context = self.runner.context([sequence.stored for sequence in self.running])

    def _answer(self, whole: list[tuple[Request, Resident, Emit]]) -> None:
        """Answer requests of tasks that write no text, task by task."""
        by_task: dict[Key, list[tuple[Request, Resident, Emit]]] = {}
        for entry in whole:
            by_task.setdefault(entry[1].key, []).append(entry)
        for entries in by_task.values():
            self._answer_task(entries)

    def _answer_task(self, entries: list[tuple[Request, Resident, Emit]]) -> None:
        task = entries[0][1]
        asked = []
        for request, _, emit in entries:
            try:
                question, _ = task.task.ask(request.example, task.model, task.how, truncate=request.truncate)
                asked.append((question, emit))
            except ForewordError as error:
                emit(Failed("request", str(error)))
        try:
            found = predictions(task.task, task.model, task.learned, [question for question, _ in asked], 32)
        except Exception as error:  # a fault in one task's step must not stop the engine
            for _, emit in asked:
                emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
            return
        for (question, emit), each in zip(asked, found, strict=True):
            emit(Answer(each.text, each.value, each.scores))
            emit(Done("stop", sum(len(row.ids) for row in question.rows), 0))

    def _guarded(self, sequences: list[Running], work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the other requests go on
            for sequence in sequences:
                sequence.emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
                if sequence in self.running:
                    self._leave(sequence)
                elif sequence.task is not None and sequence.task.prefix is not None:
                    self.pool.release(sequence.task.key, sequence.request.id)

    def check(self) -> None:
        """Raise AssertionError if the books do not balance."""
        self.pool.check()
        self.places.check()
        taken = [place for stored in self.stored.values() for place in stored.places]
        assert len(set(taken)) == len(taken), "two prefixes share a place"
        assert set(self.stored) == {entry.key for entry in self.pool}, "a prefix is stored without a place in the books"
        readers = {reader for entry in self.pool for reader in entry.readers}
        assert readers == {s.request.id for s in self.running if s.task is not None and s.task.prefix is not None}, "a reader has gone"
