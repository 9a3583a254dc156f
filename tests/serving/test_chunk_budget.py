"""The chunk budget: a step with a chunk takes a bounded time beside running sequences, whatever the machine's speed."""

from __future__ import annotations

import pytest

from foreword.serving.chunk_budget import FIRST, IDLE_SECONDS, LEAST, MOST, SLOWDOWN, ChunkBudget


@pytest.mark.parametrize("decode", [0.002, 0.1, 0.5])
@pytest.mark.parametrize("token", [0.00001, 0.0005, 0.002])
def test_chunks_fit_into_the_time_that_a_step_may_take(decode: float, token: float) -> None:
    budget = ChunkBudget()
    assert (budget.tokens(3), budget.tokens(0)) == (FIRST, MOST)
    for _ in range(30):
        budget.observe(3, 0, decode)
        count = budget.tokens(3)
        budget.observe(3, count, decode + count * token)
    count = budget.tokens(3)
    assert count in (LEAST, MOST) or decode + count * token <= 1.05 * SLOWDOWN * decode
    assert count in (LEAST, MOST) or decode + count * token >= 0.8 * SLOWDOWN * decode
    idle = budget.tokens(0)
    assert idle in (LEAST, MOST) or idle * token == pytest.approx(IDLE_SECONDS, rel=0.1)


def test_one_slow_step_changes_little() -> None:
    budget = ChunkBudget()
    for _ in range(30):
        budget.observe(3, 0, 0.1)
        budget.observe(3, 100, 0.2)
    before = budget.tokens(3)
    budget.observe(3, 100, 60.0)
    assert budget.tokens(3) > before / 3


def test_answers_without_a_text_leave_time_for_running_sequences() -> None:
    budget = ChunkBudget()
    assert budget.pooled(128, 3) == 128
    budget.observe(3, 0, 0.1)
    budget.observe_pooling(10, 0.2)
    assert budget.pooled(128, 3) == int((SLOWDOWN - 1) * 0.1 / 0.02) and budget.pooled(128, 0) == 128
    budget.observe_pooling(1, 100.0)
    assert budget.pooled(128, 3) >= 1


def test_more_running_sequences_have_times_of_their_own() -> None:
    budget = ChunkBudget()
    budget.observe(1, 0, 0.1)
    budget.observe(32, 0, 0.3)
    budget.observe(0, 100, 0.1)
    assert budget.tokens(30) == pytest.approx(3 * budget.tokens(1), abs=3) and budget.tokens(2) == budget.tokens(1)
