"""The KV cache manager: gives sequences slots for their tokens, lets them share what others have computed, and takes all back when they end."""

from __future__ import annotations

import itertools
from typing import final

from foreword.backbone.kv_cache import PagedKVCache
from foreword.serving.memory_budget import Evictor, MemoryBudget
from foreword.serving.prefix_cache import BLOCK_SIZE, Block, PrefixCache, Root
from foreword.serving.sequence import Sequence
from foreword.serving.slot_allocator import SlotAllocator
from foreword.serving.slot_table import PrefixSlots, SlotTable


@final
class KVCacheManager:
    """Slots for sequences within a memory budget. With `prefix_caching`, texts stay until their memory is needed. Not for several threads."""

    def __init__(self, cache: PagedKVCache, budget: MemoryBudget, *, prefix_caching: bool = True) -> None:
        self.cache, self.budget, self.prefix_caching = cache, budget, prefix_caching
        self.allocator = SlotAllocator(cache, budget)
        self.texts = PrefixCache()
        self.num_queried = self.num_hits = 0  # tokens of texts that began, and of those the ones found in the cache
        text_bytes = BLOCK_SIZE * cache.slot_bytes
        budget.evictors.append(Evictor(lambda: self.texts.num_unread * text_bytes, lambda: self.allocator.free(self.texts.evict())))

    def begin(self, sequence: Sequence, prefix: PrefixSlots) -> bool:
        """Give a sequence slots for all its tokens, cached ones included; False, with nothing given, if there is no room."""
        sequence.table = SlotTable(prefix)
        blocks = self.texts.match(sequence.root, sequence.cacheable) if self.prefix_caching and sequence.reads_cache else []
        self.texts.acquire(blocks)
        sequence.blocks = blocks
        sequence.table.extend([slot for block in blocks for slot in block.slots])
        sequence.num_computed = len(blocks) * BLOCK_SIZE
        if not self.reserve(sequence, len(sequence.inputs)):
            self.release(sequence)
            return False
        self.num_queried += len(sequence.inputs)
        self.num_hits += sequence.num_computed
        return True

    def reserve(self, sequence: Sequence, count: int) -> bool:
        """Slots for the first `count` inputs of a sequence; False if there is no room."""
        missing = sequence.table.first + count - sequence.table.length
        if missing <= 0:
            return True
        slots = self.allocator.allocate(-(-missing // BLOCK_SIZE) * BLOCK_SIZE)
        if slots is None:
            return False
        sequence.table.extend(slots)
        return True

    def share(self, sequence: Sequence, end: int) -> None:
        """Put the full blocks of a sequence's first `end` inputs into the cache: this step computes them, and others may read them in it."""
        if not self.prefix_caching:
            return
        table, limit = sequence.table, min(end, sequence.num_cacheable)
        for begin in range(len(sequence.blocks) * BLOCK_SIZE, limit - BLOCK_SIZE + 1, BLOCK_SIZE):
            slots = tuple(table.slots()[table.first + begin : table.first + begin + BLOCK_SIZE].tolist())
            parent = sequence.blocks[-1] if sequence.blocks else None
            sequence.blocks.append(self.texts.add(sequence.root, parent, tuple(sequence.inputs[begin : begin + BLOCK_SIZE]), slots))

    def computed(self, sequence: Sequence, end: int) -> None:
        """The step that computed a sequence's inputs up to `end` has run."""
        for block in itertools.takewhile(lambda block: not block.computed, reversed(sequence.blocks)):
            block.computed = True
        sequence.num_computed = end

    def release(self, sequence: Sequence) -> None:
        """The sequence reads nothing any more; what is cached of it stays until its memory is needed."""
        table, blocks = sequence.table, sequence.blocks
        own = table.slots()[table.first :].tolist()
        for index, block in enumerate(blocks):
            begin = index * BLOCK_SIZE
            if block.slots[0] == own[begin]:  # the cache's, else another sequence had cached the same text meanwhile
                own[begin : begin + BLOCK_SIZE] = [None] * BLOCK_SIZE
        for slots in self.texts.release(blocks):
            self.allocator.free(slots)
        self.allocator.free(slot for slot in own if slot is not None)
        sequence.blocks, sequence.table, sequence.num_computed = [], SlotTable(table.prefix), 0

    def remove(self, root: Root) -> None:
        """Free the texts behind a prefix that leaves memory."""
        for slots in self.texts.remove(root):
            self.allocator.free(slots)

    def check(self, sequences: list[Sequence], prefixes: list[PrefixSlots]) -> None:
        """Raise AssertionError if the counts and the memory do not agree."""
        self.budget.check()
        self.allocator.check()
        self.texts.check()
        held: list[Block] = [block for sequence in sequences for block in sequence.blocks]
        assert sum(block.refs for block in self.texts) == len(held), "a cached text is held for a sequence that has ended"
        cached = {slot for block in self.texts for slot in block.slots}
        own = [slot for sequence in sequences for slot in sequence.table.slots()[sequence.table.first :].tolist() if slot not in cached]
        used = [*cached, *own, *(slot for prefix in prefixes for slot in prefix.slots)]
        assert len(set(used)) == len(used), "two stored tokens share a slot"
        assert len(used) == self.allocator.num_used, f"{self.allocator.num_used} slots are in use, but {len(used)} are known"
