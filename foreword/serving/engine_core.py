"""The engine core, without threads: each step schedules, runs the model and processes its output. Requests join between steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import final

from torch import Tensor

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.kv_cache import NULL_SLOT, PagedKVCache, slot_bytes
from foreword.backbone.weights.packed_linear import pack_linear_layers
from foreword.errors import ModelError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.adapter_manager import AdapterManager
from foreword.serving.embedding import EmbeddingQueue
from foreword.serving.input_processor import InputProcessor
from foreword.serving.kv_cache_manager import KVCacheManager
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.memory_budget import MemoryBudget, default_memory
from foreword.serving.model_runner import Chunk, ModelRunner
from foreword.serving.output_processor import finish, process_logits, process_prompt_logits
from foreword.serving.pooling import pool
from foreword.serving.request import Event, Failed, Request
from foreword.serving.scheduler import Scheduler


@final
class EngineCore:
    """`add`, `cancel` and `install` are called between steps, `step` does one piece of work. Not for several threads.

    `memory_bytes` is what task prefixes, heads and LoRA weights, cached texts and running sequences may take together (half of what is free, at most
    4 GiB, by default); texts are kept for later requests with `prefix_caching`. `pack_weights`
    keeps a second copy of the weights where that makes products faster (bf16 on a CPU).
    """

    def __init__(
        self,
        model: FrozenModel,
        *,
        max_sequences: int = 32,
        memory_bytes: int | None = None,
        prefix_caching: bool = True,
        pack_weights: bool = True,
    ) -> None:
        _check_device(model)
        self.base, self.model = model, pack_linear_layers(model) if pack_weights else model
        budget = MemoryBudget(default_memory(model.device) if memory_bytes is None else memory_bytes)
        capacity = budget.total // slot_bytes(model.shape, model.dtype) + NULL_SLOT + 1
        cache = PagedKVCache(model.shape, capacity, model.dtype, model.device)
        self.kv = KVCacheManager(cache, budget, prefix_caching=prefix_caching)
        self.runner = ModelRunner(cache)
        self.adapters = AdapterManager(self.model, self.kv)
        self.input_processor = InputProcessor(self.model)
        self.embeddings = EmbeddingQueue(self.model)
        self.scheduler = Scheduler(self.adapters, self.kv, self.input_processor.sequence, max_sequences=max_sequences)
        self.num_steps = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.has_work or self.embeddings.has_work

    @property
    def running(self) -> list[Request]:
        """Requests that have begun."""
        return [sequence.request for sequence in list(self.scheduler.running)]

    def add(self, request: Request, key: AdapterKey | None, emit: Callable[[Event], None]) -> None:
        """Add a request; its events are emitted from `step`. Its task may be installed later."""
        if request.pooling is not None:
            self.embeddings.add(request, emit)
        else:
            self.scheduler.add(request, key, emit)

    def cancel(self, request_id: str) -> None:
        """Cancel a request; its memory is free at once."""
        self.scheduler.cancel_waiting(request_id)
        self.embeddings.cancel(request_id)
        for sequence in [sequence for sequence in self.scheduler.running if sequence.request.id == request_id]:
            finish(sequence, "cancelled")
            self.scheduler.release(sequence)

    def install(self, task: LoadedTask, *, pinned: bool = False) -> None:
        """Load a task into memory, for all requests that wait for it. Raises CapacityError if the memory is in use."""
        self.adapters.install(replace(task, model=self.model) if task.model is self.base else task, pinned=pinned)
        self.scheduler.waiting.installed(task.key)

    def retire(self, key: AdapterKey) -> None:
        """Remove a version from memory as soon as no request reads it."""
        self.adapters.retire(key)
        self._remove_retired()

    def step(self) -> None:
        """Schedule, run the model, process its output. An error fails only the requests that cause it."""
        self.num_steps += 1
        scheduled = self.scheduler.schedule()
        if scheduled.pooling:
            began = time.perf_counter()
            pool(self.model, scheduled.pooling)
            self.scheduler.chunk_budget.observe_pooling(len(scheduled.pooling), time.perf_counter() - began)
        self.embeddings.step()
        began = time.perf_counter()
        num_decoding = sum(chunk.sequence.decoding for chunk in scheduled.chunks)
        by_model: dict[FrozenModel, list[Chunk]] = {}  # tasks with weights of their own run apart
        for chunk in scheduled.chunks:
            by_model.setdefault(chunk.sequence.model, []).append(chunk)
        for chunks in by_model.values():
            self._run(chunks)
        if scheduled.chunks:
            num_tokens = sum(chunk.num_tokens for chunk in scheduled.chunks)
            self.scheduler.chunk_budget.observe(num_decoding, num_tokens - num_decoding, time.perf_counter() - began)
        self._remove_retired()

    def _run(self, chunks: Many[Chunk]) -> None:
        """Run the model for chunks and give sequences their next tokens; finished ones are released. When that fails, each is tried alone."""
        try:
            logits = self.runner.run(chunks)
        except Exception as error:  # whatever the error, the other requests continue
            for chunk in chunks:
                if len(chunks) > 1:
                    self.scheduler.restart(chunk.sequence)
                    continue
                chunk.sequence.emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
                self.scheduler.release(chunk.sequence)
            return
        for chunk in chunks:
            self.kv.computed(chunk.sequence, chunk.end)
        self._process(chunks, logits)

    def _process(self, chunks: Many[Chunk], logits: Tensor) -> None:
        """Give the sequences whose inputs are all computed their next token."""
        ready = [chunk for chunk in chunks if chunk.last]
        ends = list(itertools.accumulate(len(chunk.kept) for chunk in chunks))
        last = [end - 1 for chunk, end in zip(chunks, ends, strict=True) if chunk.last]
        for chunk, end in zip(chunks, ends, strict=True):
            if chunk.sequence.next_prompt_logits is not None:
                process_prompt_logits(chunk.sequence, logits[end - len(chunk.kept) : end], chunk.kept.start)
                chunk.sequence.next_prompt_logits = chunk.end
        for chunk, end in zip(chunks, ends, strict=True):
            if chunk.kept and chunk.sequence.prompt_scores is not None:
                process_prompt_logits(chunk.sequence, logits[end - len(chunk.kept) : end], chunk.kept.start)
        if ready:
            rows = logits if len(last) == len(logits) else logits[last]
            for sequence in process_logits([chunk.sequence for chunk in ready], rows):
                self.scheduler.release(sequence)

    def _remove_retired(self) -> None:
        self.adapters.remove_retired(lambda: {entry.key for entry in self.scheduler.waiting})

    def check(self) -> None:
        """Raise AssertionError if the counts and the memory do not agree."""
        self.adapters.check()
        self.kv.check(self.scheduler.running, list(self.adapters.prefixes.values()))
        refs = {ref for entry in self.adapters.cache for ref in entry.refs}
        waiting = {entry.request.id for entry in self.scheduler.waiting if entry.sequence and entry.sequence.preempted and entry.key}
        assert refs == {request.id for request in self.running if request.task is not None} | waiting, (
            "an adapter is held for a request that has ended"
        )


def _check_device(model: FrozenModel) -> None:
    """Raise ModelError for a model on several devices: sequences keep their keys and values on one."""
    devices = sorted({str(parameter.device) for parameter in model.network.parameters()})
    if len(devices) > 1:
        raise ModelError(
            f"{model.name} is spread over {', '.join(devices)}, but an engine needs it on one device; load it without device_map, or on a device that holds it whole."
        )
