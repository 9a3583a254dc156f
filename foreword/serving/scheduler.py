"""The scheduler: what each step computes. Running sequences get their next token, and prompts are read in chunks beside them. No tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import final

from foreword.errors import ForewordError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.adapter_manager import AdapterManager
from foreword.serving.chunk_budget import ChunkBudget
from foreword.serving.kv_cache_manager import KVCacheManager
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.model_runner import Chunk
from foreword.serving.pooling import PoolingRequest
from foreword.serving.request import Event, Failed, Request
from foreword.serving.request_check import unreadable
from foreword.serving.sequence import Sequence
from foreword.serving.waiting_requests import WaitingRequest, WaitingRequests

MAX_POOLING = 128  # requests without a generated text that are answered between two tokens of the others
MAX_SCORED = 256  # tokens of prompts in a step whose own log-probabilities are asked for: each takes a row of logits

OpenSequence = Callable[[Request, LoadedTask | None, Callable[[Event], None]], Sequence]


@dataclass
class SchedulerOutput:
    """What one step does: answer `pooling`, and compute `chunks`, at most one of a sequence."""

    chunks: list[Chunk] = field(default_factory=list)
    pooling: list[PoolingRequest] = field(default_factory=list)


@final
class Scheduler:
    """Fair among tenants, and first come, first served for each of them.

    A tenant's turn comes by the tokens computed for it so far (virtual token counter; Sheng et al. 2024, arXiv:2401.00588). When memory is full, the
    sequence that began last is preempted: it gives up its memory and is computed again later. A request whose task is not in memory holds nobody up.
    """

    def __init__(self, adapters: AdapterManager, kv: KVCacheManager, open_sequence: OpenSequence, *, max_sequences: int) -> None:
        self.adapters, self.kv, self.open_sequence, self.max_sequences = adapters, kv, open_sequence, max_sequences
        self.waiting = WaitingRequests(adapters.tasks)
        self.running: list[Sequence] = []  # in the order in which they began
        self.chunk_budget = ChunkBudget()
        self.num_preemptions = 0
        self._entries: dict[Sequence, WaitingRequest] = {}  # of running sequences
        self._served: dict[str, int] = {}  # tokens by tenant
        self._arrivals = count()

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.running or self.waiting.generating or self.waiting.pooling)

    @property
    def missing_tasks(self) -> list[AdapterKey]:
        """Tasks that requests wait for and that are not in memory, in the order of the requests."""
        return list(self.waiting.parked)

    def add(self, request: Request, key: AdapterKey | None, emit: Callable[[Event], None]) -> None:
        """Put a request at the end of its tenant's queue; its task may still have to be installed."""
        active = self._tenants()
        if request.tenant not in active:  # else one that was away could claim all that it did not use meanwhile, or pay for it
            served = [self._served[tenant] for tenant in active]
            mine = self._served.get(request.tenant, 0)
            self._served[request.tenant] = min(max(mine, min(served)), max(served)) if served else 0
        self.waiting.add(WaitingRequest(request, key, emit, next(self._arrivals)))

    def cancel_waiting(self, request_id: str) -> None:
        """End a request that does not run."""
        entry = self.waiting.cancel(request_id)
        if entry is not None and entry.sequence is not None and entry.sequence.preempted:
            self._release_adapter(entry)

    def schedule(self) -> SchedulerOutput:
        """Choose what this step does. Sequences hold their memory and their adapters until `release`."""
        output = SchedulerOutput(pooling=self._pooling())
        alone = next((sequence for sequence in self.running if sequence.alone), None)
        if alone is not None:
            alone.alone = False
            output.chunks = [self._chunk(alone, self.chunk_budget.most)] if self._has_slots(alone) else []
            return output
        self._rebalance()
        for sequence in list(self.running):
            if sequence.decoding and sequence in self.running and self._has_slots(sequence):
                output.chunks.append(self._chunk(sequence, 1))
        self._add_prompts(output.chunks)
        return output

    def _add_prompts(self, chunks: list[Chunk]) -> None:
        """Fill the step with chunks of prompts: in turn by tenant, one prompt of each after another."""
        budget, blocked = self.chunk_budget.tokens(len(chunks)), set[str]()
        scored = MAX_SCORED
        scheduled = {chunk.sequence for chunk in chunks}
        while budget > 0:
            tenants = {*self.waiting.generating, *(sequence.request.tenant for sequence in self._reading(scheduled))} - blocked
            if not tenants:
                return
            holds = Counter(sequence.request.tenant for sequence in self.running)
            tenant = min(tenants, key=lambda name: (self._served.get(name, 0), holds[name]))
            reading = (sequence for sequence in self._reading(scheduled) if sequence.request.tenant == tenant)
            sequence = next(reading, None) or self._admit(tenant)
            if sequence is None:
                blocked.add(tenant)
                continue
            if sequence.next_prompt_logits is not None and not scored:
                blocked.add(tenant)
                continue
            chunk = self._chunk(sequence, budget if sequence.next_prompt_logits is None else min(budget, scored))
            budget -= chunk.num_tokens
            scored -= 0 if sequence.next_prompt_logits is None else chunk.num_tokens
            scheduled.add(sequence)
            chunks.append(chunk)

    def _reading(self, scheduled: set[Sequence]) -> list[Sequence]:
        """Running sequences whose prompt is not read yet, and that are not in this step."""
        return [sequence for sequence in self.running if not sequence.decoding and sequence not in scheduled]

    def _chunk(self, sequence: Sequence, most: int) -> Chunk:
        chunk = Chunk(sequence, sequence.num_computed, min(len(sequence.inputs), sequence.num_computed + most))
        self.kv.share(sequence, chunk.end)
        tenant = sequence.request.tenant
        self._served[tenant] = self._served.get(tenant, 0) + chunk.num_tokens
        return chunk

    def _admit(self, tenant: str) -> Sequence | None:
        """A tenant's next request as a running sequence, if there is a place and memory for it."""
        while len(self.running) < self.max_sequences:
            entry = self.waiting.first(self.waiting.generating, tenant)
            if entry is None:
                return None
            sequence = entry.sequence = entry.sequence or self._open(entry)
            if sequence is None:
                continue
            prefix = self.adapters.prefix(entry.key)
            held = self._acquire_adapter(entry)  # else it could be evicted for its own sequence
            if self.kv.begin(sequence, prefix):
                sequence.preempted = False
                self.waiting.remove(entry)
                self.running.append(sequence)
                self._entries[sequence] = entry
                return sequence
            if self.running:
                if held:
                    self._release_adapter(entry)
                return None  # it waits for memory
            self.waiting.remove(entry)
            self._release_adapter(entry)
            sequence.emit(self._too_large(sequence))
        return None

    def _open(self, entry: WaitingRequest) -> Sequence | None:
        """The request as a sequence; one that cannot be read fails, and is None."""
        try:
            return self.open_sequence(entry.request, None if entry.key is None else self.adapters.tasks[entry.key], entry.emit)
        except ForewordError as error:
            entry.emit(Failed("request", error.request_message))
        except Exception as error:  # whatever the error, it is this request's alone
            entry.emit(Failed("request", str(unreadable(error))))
        self.waiting.remove(entry)
        return None

    def _has_slots(self, sequence: Sequence) -> bool:
        """Whether a sequence has memory for its next token; others that began later are preempted for it."""
        while not self.kv.reserve(sequence, len(sequence.inputs)):
            last = self.running[-1]
            if last is sequence and len(self.running) == 1:
                sequence.emit(self._too_large(sequence))
                self.release(sequence)
                return False
            self._preempt(last)
            if last is sequence:
                return False
        return True

    def _rebalance(self) -> None:
        """When all places are taken, preempt a sequence of the tenant with the most for one that waits and has fewer."""
        if len(self.running) < self.max_sequences or not self.waiting.generating:
            return
        holds = Counter(sequence.request.tenant for sequence in self.running)
        richest = max(holds, key=lambda name: holds[name])
        poorest = min(self.waiting.generating, key=lambda name: (holds[name], self._served.get(name, 0)))
        if holds[richest] >= holds[poorest] + 2 and self._served.get(poorest, 0) <= self._served.get(richest, 0):
            self._preempt(next(sequence for sequence in reversed(self.running) if sequence.request.tenant == richest))

    def _preempt(self, sequence: Sequence) -> None:
        """Take a sequence's memory; it waits in front of its tenant's later requests, keeps its adapter, and is computed again."""
        self.num_preemptions += 1
        self.running.remove(sequence)
        self.kv.release(sequence)
        sequence.preempted = True
        self.waiting.add(self._entries.pop(sequence))

    def restart(self, sequence: Sequence) -> None:
        """Compute a sequence again, alone: a step with it and others failed."""
        prefix = sequence.table.prefix
        self.kv.release(sequence)
        sequence.alone = True
        if not self.kv.begin(sequence, prefix):
            self._preempt(sequence)

    def release(self, sequence: Sequence) -> None:
        """A running sequence has ended."""
        self.running.remove(sequence)
        self.kv.release(sequence)
        self._release_adapter(self._entries.pop(sequence))

    def _acquire_adapter(self, entry: WaitingRequest) -> bool:
        """Hold a request's adapter; False if it does already."""
        if entry.key is None or (entry.sequence is not None and entry.sequence.preempted):
            return False
        self.adapters.cache.acquire(entry.key, entry.request.id)
        return True

    def _release_adapter(self, entry: WaitingRequest) -> None:
        if entry.key is not None:
            self.adapters.cache.release(entry.key, entry.request.id)

    def _pooling(self) -> list[PoolingRequest]:
        """Requests without a generated text, one of each tenant in turn."""
        found: list[PoolingRequest] = []
        most = self.chunk_budget.pooled(MAX_POOLING, len(self.running))
        while len(found) < most and self.waiting.pooling:
            for tenant in list(self.waiting.pooling):
                entry = self.waiting.first(self.waiting.pooling, tenant)
                if entry is not None and entry.key is not None and len(found) < most:
                    self.waiting.remove(entry)
                    found.append(PoolingRequest(entry.request, self.adapters.tasks[entry.key], entry.emit))
        return found

    def _tenants(self) -> set[str]:
        """Those with requests."""
        return {*self.waiting.generating, *(sequence.request.tenant for sequence in self.running)}

    def _too_large(self, sequence: Sequence) -> Failed:
        total = self.kv.budget.total // self.kv.cache.slot_bytes
        return Failed(
            "capacity",
            f"the request has {len(sequence.inputs)} tokens so far, but the engine's memory has no room for them beside what is pinned "
            f"(all of it holds {total} tokens); shorten the request, or give the engine more memory.",
        )
