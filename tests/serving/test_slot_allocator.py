"""The slot allocator: no slot twice, lowest first, within the budget."""

from __future__ import annotations

import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone.kv_cache import NULL_SLOT, PagedKVCache
from foreword.serving.memory_budget import MemoryBudget
from foreword.serving.slot_allocator import SlotAllocator


def allocator(slots: int) -> SlotAllocator:
    cache = PagedKVCache(tiny.frozen("llama").shape, slots + 1, torch.float32, torch.device("cpu"))
    return SlotAllocator(cache, MemoryBudget(slots * cache.slot_bytes))


def test_slots_are_used_again_lowest_first_and_the_null_slot_never() -> None:
    made = allocator(6)
    first = made.allocate(4)
    assert first == (1, 2, 3, 4) and NULL_SLOT not in first
    made.free((3, 2))
    assert made.allocate(3) == (2, 3, 5) and made.allocate(2) is None and made.allocate(1) == (6,) and made.num_used == 6
    made.check()


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=40))
def test_no_slot_has_two_owners(steps: list[tuple[bool, int]]) -> None:
    made, held = allocator(20), list[tuple[int, ...]]()
    for take, count in steps:
        if take:
            found = made.allocate(count)
            assert (found is None) == (sum(map(len, held)) + count > 20)
            held.extend([] if found is None else [found])
        elif held:
            made.free(held.pop(count % len(held)))
        used = [slot for each in held for slot in each]
        assert len(set(used)) == len(used) == made.num_used and all(1 <= slot <= 20 for slot in used)
        made.check()
