"""Cached prefill: computes texts that many requests begin with once and keeps their keys and values, so that each request reads only the rest."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import final

import torch

from foreword.prompts.template import Row
from foreword.serving.model_runner import ModelRunner
from foreword.serving.prefix_cache import BLOCK_SIZE, MIN_BLOCKS, Block, PrefixCache, Root
from foreword.serving.sequence import Sequence
from foreword.serving.slot_allocator import SlotAllocator


@final
class CachedPrefill:
    """The tensors of a prefix cache. A text is cached when it comes a second time, alone or in the same step, for whichever tasks: with soft
    tokens behind the text all tasks share it.
    """

    def __init__(self, runner: ModelRunner, allocator: SlotAllocator, num_bytes: int) -> None:
        self.runner, self.allocator = runner, allocator
        token_bytes = sum(kv.width for kv in runner.model.shape.kv) * torch.finfo(runner.model.dtype).bits // 8
        self.cache = PrefixCache(num_bytes // token_bytes)
        self.num_hits = 0

    @property
    def slots(self) -> list[int]:
        """All slots of cached texts."""
        return [slot for block in self.cache for slot in block.slots]

    def apply(self, sequences: Many[Sequence], first: int) -> None:
        """Cache repeated beginnings of new sequences' texts, so that each reads only the rest; KV rows from `first` on are free."""
        longest: dict[tuple[Root, tuple[int, ...]], tuple[Sequence, int]] = {}
        for sequence in sequences:
            ids = sequence.cacheable
            count = self.cache.num_repeated(sequence.root, ids)
            name = (sequence.root, ids[:BLOCK_SIZE])
            if count >= MIN_BLOCKS and count > longest.get(name, (sequence, 0))[1]:
                longest[name] = sequence, count
        self._compute(list(longest.values())[: self.runner.kv_cache.count - first], first)
        for sequence in sequences:
            blocks = self.cache.hit(sequence.root, sequence.cacheable)
            if blocks:
                self.num_hits += 1
                self.cache.acquire(blocks, sequence.request.id)
                sequence.read_from_cache(blocks)

    def release(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        self.cache.release(sequence.blocks, sequence.request.id)

    def remove(self, root: Root) -> None:
        """Free the texts after a prefix that was removed from memory."""
        for slots in self.cache.remove(root):
            self.allocator.free(slots)

    def _compute(self, texts: Many[tuple[Sequence, int]], first: int) -> None:
        """Prefill the missing blocks of texts in one pass and cache them."""
        work: list[tuple[Sequence, list[Block], tuple[int, ...]]] = []
        num_new = 0
        for sequence, count in texts:
            ids = sequence.cacheable[: count * BLOCK_SIZE]
            before = self.cache.match(sequence.root, ids)
            missing = ids[len(before) * BLOCK_SIZE :]
            self.cache.acquire(before, sequence.request.id)  # else an eviction could remove the blocks before these
            evicted = self.cache.evict(num_new + len(missing) // BLOCK_SIZE) if missing else None
            if evicted is None:
                self.cache.release(before, sequence.request.id)
                continue
            for slots in evicted:
                self.allocator.free(slots)
            num_new += len(missing) // BLOCK_SIZE
            work.append((sequence, before, missing))
        if not work:
            return
        shared = [
            sequence.shared + sequence.shared.followed_by(tuple(slot for block in before for slot in block.slots))
            for sequence, before, _ in work
        ]
        self.runner.prefill([Row(missing) for *_, missing in work], [None] * len(work), shared, first)
        for row, (sequence, before, missing) in enumerate(work, first):
            allocated = self.allocator.allocate(len(missing))
            self.runner.kv_pool.copy(torch.tensor(allocated, device=self.runner.model.device), self.runner.kv_cache, row, 0)
            self.cache.add(sequence.root, before, missing, allocated)
            self.cache.release(before, sequence.request.id)
