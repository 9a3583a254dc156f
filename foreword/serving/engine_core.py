"""The engine core, without threads: each step schedules, runs the model and processes its output. Requests join between steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from foreword.backbone.attention.cascade_attention import SharedContext
from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.template import Row
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.adapter_manager import AdapterManager
from foreword.serving.cached_prefill import CachedPrefill
from foreword.serving.input_processor import InputProcessor
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.model_runner import ModelRunner
from foreword.serving.output_processor import finish, process_logits
from foreword.serving.pooling import pool
from foreword.serving.request import END, Event, Failed, Request
from foreword.serving.scheduler import Scheduler, WaitingRequest
from foreword.serving.sequence import Sequence
from foreword.serving.slot_allocator import SlotAllocator
from foreword.serving.slot_table import SlotTable

OWN_ENGINE_SEQUENCES = 8  # for a task with its own weights, which shares no batch with others


@final
class EngineCore:
    """`add`, `cancel` and `install` are called between steps, `step` does one piece of work. Not for several threads."""

    def __init__(
        self, model: FrozenModel, *, max_sequences: int = 32, adapter_bytes: int = 1 << 30, prefix_cache_bytes: int = 1 << 28
    ) -> None:
        self.model = model
        self.runner = ModelRunner(model, max_sequences=max_sequences)
        self.allocator = SlotAllocator(self.runner.kv_pool)
        self.cached_prefill = CachedPrefill(self.runner, self.allocator, prefix_cache_bytes)
        self.adapters = AdapterManager(self.runner, self.allocator, self.cached_prefill, adapter_bytes)
        self.input_processor = InputProcessor(model)
        self.own_engines: dict[AdapterKey, EngineCore] = {}  # of tasks with weights of their own
        self.scheduler = Scheduler(
            self.adapters, self.cached_prefill.cache, self._open_sequence, own_engines=self.own_engines, max_sequences=max_sequences
        )
        self.context: SharedContext | None = None  # the slots of the pool that running sequences read
        self.num_steps = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.has_work or any(engine.has_work for engine in self.own_engines.values())

    @property
    def running(self) -> list[Request]:
        """Requests that have begun."""
        engines = list(self.own_engines.values())
        forwarded = [request for engine in engines for request in (*engine.running, *(entry.request for entry in engine.scheduler.waiting))]
        return [*(sequence.request for sequence in list(self.scheduler.running)), *forwarded]

    def add(self, request: Request, key: AdapterKey | None, emit: Callable[[Event], None]) -> None:
        """Add a request; its events are emitted from `step`. Its task may be installed later."""
        self.scheduler.add(request, key, emit)

    def cancel(self, request_id: str) -> None:
        """Cancel a request; its KV row is free at once."""
        self.scheduler.cancel_waiting(request_id)
        for sequence in [sequence for sequence in self.scheduler.running if sequence.request.id == request_id]:
            finish(sequence, "cancelled")
            self._release(sequence)
        for engine in self.own_engines.values():
            engine.cancel(request_id)

    def install(self, task: LoadedTask, *, pinned: bool = False) -> None:
        """Load a task into memory, for all requests that wait for it. Raises CapacityError if the budget is in use."""
        self.adapters.install(task, pinned=pinned)
        self._drop_own_engines()
        if task.generates and task.model is not self.model and task.key not in self.own_engines:
            engine = EngineCore(task.model, max_sequences=OWN_ENGINE_SEQUENCES, adapter_bytes=task.num_bytes)
            engine.install(task)
            self.own_engines[task.key] = engine

    def retire(self, key: AdapterKey) -> None:
        """Remove a version from memory as soon as no request reads it."""
        self.adapters.retire(key)
        self._remove_retired()

    def step(self) -> None:
        """Schedule, run the model, process its output. An error fails only the requests of this step."""
        self.num_steps += 1
        scheduled = self.scheduler.schedule()
        for entry in scheduled.forwarded:
            self._forward(entry)
        if scheduled.pooling:
            pool(self.model, scheduled.pooling)
        if scheduled.prefill:
            self._run(self._prefill, scheduled.prefill)
        elif scheduled.decode:
            self._run(self._decode, scheduled.decode)
        for engine in self.own_engines.values():
            if engine.has_work:
                engine.step()
        self._remove_retired()

    def _open_sequence(self, request: Request, task: LoadedTask | None, emit: Callable[[Event], None]) -> Sequence:
        sequence = self.input_processor.sequence(request, task, emit)
        if task is not None:
            sequence.shared = self.adapters.prefixes.get(task.key, SlotTable())
        return sequence

    def _run(self, work: Callable[[list[Sequence]], Tensor], sequences: list[Sequence]) -> None:
        """Run the model for sequences and give each its next token; finished ones are removed."""
        try:
            logits = work(sequences)
        except Exception as error:  # whatever the error, the other requests continue
            for sequence in sequences:
                sequence.emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
            ended = sequences
        else:
            ended = process_logits(sequences, logits)
        for sequence in ended:
            self._release(sequence)

    def _prefill(self, sequences: list[Sequence]) -> Tensor:
        """Read new prompts into the KV rows behind the running ones; the logits after each."""
        running = self.scheduler.running
        first = len(running)
        self.cached_prefill.apply(sequences, first)
        prompts: list[Row] = [sequence.prompt for sequence in sequences]
        shared = [sequence.shared for sequence in sequences]
        logits, counts, offset = self.runner.prefill(prompts, [sequence.soft_tokens for sequence in sequences], shared, first)
        running.extend(sequences)
        for sequence, count, begin in zip(sequences, counts, offset, strict=True):
            sequence.kv_len, sequence.offset = count, begin
        self._update_context()
        return logits

    def _decode(self, sequences: list[Sequence]) -> Tensor:
        """Read the last token of each running sequence; the logits after it."""
        device = self.model.device
        last = torch.tensor([sequence.tokens[-1] for sequence in sequences], device=device)
        starts = torch.tensor([sequence.kv_len for sequence in sequences], device=device)
        offset = torch.tensor([sequence.offset for sequence in sequences], device=device)
        self.runner.reserve(int(starts.max()) + 1)
        logits = self.runner.decode(last, self.context, starts, offset)
        for sequence in sequences:
            sequence.kv_len += 1
        return logits

    def _release(self, sequence: Sequence) -> None:
        """Free what a sequence holds. The last running one moves into its KV row, so that the rows in use stay contiguous."""
        running = self.scheduler.running
        if sequence in running:
            row, last = running.index(sequence), len(running) - 1
            if row != last:
                self.runner.kv_cache.move(last, row, running[last].kv_len)
                running[row] = running[last]
            running.pop()
            self._update_context()
        self.cached_prefill.release(sequence)
        self.scheduler.release(sequence.task.key if sequence.task else None, sequence.request.id)

    def _update_context(self) -> None:
        self.context = self.runner.context([sequence.shared for sequence in self.scheduler.running])

    def _forward(self, entry: WaitingRequest) -> None:
        """Hand a request to the engine of a task with weights of its own; the task stays in memory until it has ended."""
        key = entry.key
        assert key is not None

        def emit(event: Event) -> None:
            if isinstance(event, END):
                self.scheduler.release(key, entry.request.id)
            entry.emit(event)

        self.own_engines[key].add(entry.request, key, emit)

    def _remove_retired(self) -> None:
        self.adapters.remove_retired({entry.key for entry in self.scheduler.waiting})
        self._drop_own_engines()

    def _drop_own_engines(self) -> None:
        """Drop the engines of tasks that were removed from memory."""
        for key in [key for key in self.own_engines if key not in self.adapters.tasks]:
            del self.own_engines[key]

    def check(self) -> None:
        """Raise AssertionError if the counts and the memory do not agree."""
        self.adapters.check()
        refs = {ref for entry in self.adapters.cache for ref in entry.refs}
        assert refs == {request.id for request in self.running if request.task is not None}, (
            "an adapter is held for a request that has ended"
        )
        for engine in self.own_engines.values():
            engine.check()
