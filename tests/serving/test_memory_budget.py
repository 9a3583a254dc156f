"""The memory budget: what nobody reads is evicted in order, and only if that is enough."""

from __future__ import annotations

import torch

from foreword.serving.memory_budget import Evictor, MemoryBudget, default_memory


def holding(budget: MemoryBudget, parts: list[int]) -> Evictor:
    """An evictor that holds parts of these sizes."""
    budget.take(sum(parts))

    def evict() -> None:
        budget.give_back(parts.pop(0))

    return Evictor(lambda: sum(parts), evict)


def test_evictors_are_asked_in_order_and_no_more_than_needed() -> None:
    budget, first, second = MemoryBudget(100), [10, 10], [30, 30]
    budget.evictors = [holding(budget, first), holding(budget, second)]
    assert budget.make_room(20) and (first, second) == ([10, 10], [30, 30])
    assert budget.make_room(35) and (first, second) == ([], [30, 30])
    assert budget.make_room(45) and second == [30]
    budget.check()


def test_nothing_is_evicted_in_vain() -> None:
    budget, parts = MemoryBudget(100), [10, 20]
    budget.take(50)
    budget.evictors = [holding(budget, parts)]
    assert not budget.make_room(51) and parts == [10, 20]
    assert budget.make_room(50) and parts == []


def test_the_default_leaves_memory_for_others() -> None:
    assert 0 < default_memory(torch.device("cpu")) <= 4 << 30
