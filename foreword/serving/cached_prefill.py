"""Texts that many requests begin with are read once: their keys and values stand in the arena, and each request reads the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch

from foreword.prompts.template import Row
from foreword.serving.model_runner import ModelRunner, Stored
from foreword.serving.prefix_cache import BLOCK, LEAST, Block, PrefixCache, Root
from foreword.serving.sequence import Sequence as Running
from foreword.serving.slot_allocator import SlotAllocator


@final
class CachedPrefill:
    """Stores a text when it comes a second time, alone or in the same moment, for whichever tasks: with soft tokens behind the text all tasks share it."""

    def __init__(self, runner: ModelRunner, places: SlotAllocator, budget: int) -> None:
        self.runner, self.places = runner, places
        each = sum(kv.width for kv in runner.model.shape.kv) * torch.finfo(runner.model.dtype).bits // 8
        self.pool = PrefixCache(budget // each)
        self.hits = 0

    @property
    def taken(self) -> list[int]:
        """All places of texts."""
        return [place for block in self.pool for place in block.places]

    def unread(self, sequence: Running) -> int:
        """How many tokens of a row are still to be read."""
        return sequence.row.num_tokens - BLOCK * len(self._match(sequence))

    def share(self, sequences: Sequence[Running], first: int) -> None:
        """Store what comes again of new sequences' texts, and leave each only the rest to read; slots from `first` on are free."""
        longest: dict[tuple[Root, tuple[int, ...]], tuple[Running, int]] = {}
        for sequence in sequences:
            ids = sequence.common
            count = self.pool.common(sequence.root, ids)
            name = (sequence.root, ids[:BLOCK])
            if count >= LEAST and count > longest.get(name, (sequence, 0))[1]:
                longest[name] = sequence, count
        self._store(list(longest.values())[: self.runner.slots.count - first], first)
        for sequence in sequences:
            blocks = self._match(sequence)
            if blocks:
                self.hits += 1
                self.pool.acquire(blocks, sequence.request.id)
                sequence.skip(blocks, _stored(sequence.stored, blocks))

    def release(self, sequence: Running) -> None:
        self.pool.release(sequence.blocks, sequence.request.id)

    def forget(self, root: Root) -> None:
        """Free the texts behind a prefix that has left."""
        for places in self.pool.drop(root):
            self.places.free(places)

    def check(self) -> None:
        self.pool.check()

    def _match(self, sequence: Running) -> list[Block]:
        found = self.pool.match(sequence.root, sequence.common)
        return found if len(found) >= LEAST else []

    def _store(self, texts: Sequence[tuple[Running, int]], first: int) -> None:
        """Read the missing blocks of texts in one pass and keep them."""
        work: list[tuple[Running, list[Block], tuple[int, ...]]] = []
        coming = 0
        for sequence, count in texts:
            ids = sequence.common[: count * BLOCK]
            before = self.pool.match(sequence.root, ids)
            missing = ids[len(before) * BLOCK :]
            self.pool.acquire(before, sequence.request.id)  # or making room might take what this stands on
            room = self.pool.room(coming + len(missing) // BLOCK) if missing else None
            if room is None:
                self.pool.release(before, sequence.request.id)
                continue
            for places in room:
                self.places.free(places)
            coming += len(missing) // BLOCK
            work.append((sequence, before, missing))
        if not work:
            return
        stored = [sequence.stored + _stored(sequence.stored, before) for sequence, before, _ in work]
        self.runner.prefill([Row(missing) for *_, missing in work], [None] * len(work), stored, first)
        for slot, (sequence, before, missing) in enumerate(work, first):
            taken = self.places.take(len(missing))
            index = torch.tensor(taken, device=self.runner.model.device)
            self.runner.arena.copy(index, self.runner.slots, slot, 0)
            self.pool.add(sequence.root, before, missing, taken)
            self.pool.release(before, sequence.request.id)


def _stored(behind: Stored, blocks: Sequence[Block]) -> Stored:
    """A text's tokens, which follow what is stored already and which windows leave behind."""
    places = tuple(place for block in blocks for place in block.places)
    begin = behind.end
    return Stored(places, tuple(range(begin, begin + len(places))), (False,) * len(places))
