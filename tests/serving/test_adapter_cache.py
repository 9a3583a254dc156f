"""The pool of prefixes: within its budget, never without a reader's prefix, least recently used first."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.errors import CapacityError
from foreword.serving.adapter_cache import AdapterCache, Key


def key(task: str, digest: str = "1") -> Key:
    return Key(task, digest)


def test_the_least_recently_read_leaves_first() -> None:
    pool = AdapterCache(30)
    assert [pool.admit(key(task), 10) for task in "abc"] == [[], [], []]
    pool.acquire(key("a"), "r1")
    pool.release(key("a"), "r1")
    assert pool.admit(key("d"), 15) == [key("b"), key("c")]
    assert {entry.key.task for entry in pool} == {"a", "d"} and pool.num_bytes == 25


def test_what_is_read_or_pinned_stays_and_a_refusal_changes_nothing() -> None:
    pool = AdapterCache(30)
    pool.admit(key("a"), 10)
    pool.acquire(key("a"), "r1")
    pool.admit(key("b"), 10, pinned=True)
    pool.admit(key("c"), 10)
    with pytest.raises(CapacityError) as caught:
        pool.admit(key("d"), 15)
    assert str(caught.value) == (
        "the prefix of task 'd' needs 15 bytes, but 20 of the 30 for prefixes are in use; "
        "try again later, unpin a task, or give the server more memory for prefixes."
    )
    assert {entry.key.task for entry in pool} == {"a", "b", "c"}
    pool.pin(key("b"), pinned=False)
    assert pool.admit(key("d"), 15) == [key("b"), key("c")]


def test_a_replaced_version_leaves_when_its_last_reader_has() -> None:
    pool = AdapterCache(30)
    pool.admit(key("a", "1"), 10, pinned=True)
    pool.acquire(key("a", "1"), "r1")
    pool.admit(key("a", "2"), 10)
    assert not pool.drop(key("a", "1")) and key("a", "1") in pool
    pool.release(key("a", "1"), "r1")
    assert pool.drop(key("a", "1")) and key("a", "1") not in pool and key("a", "2") in pool


class Traffic(RuleBasedStateMachine):
    """Any order of requests, pins and replacements."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = AdapterCache(100)
        self.budget_for: dict[str, Key] = {}
        self.count = 0

    @rule(task=st.sampled_from("abcdef"), size=st.integers(0, 60), pinned=st.booleans())
    def admit(self, task: str, size: int, pinned: bool) -> None:
        before = {entry.key for entry in self.pool}
        held = {entry.key for entry in self.pool if not entry.free}
        try:
            gone = self.pool.admit(key(task, str(size)), size, pinned=pinned)
        except CapacityError:
            assert {entry.key for entry in self.pool} == before
            return
        assert held.isdisjoint(gone) and {entry.key for entry in self.pool} == (before | {key(task, str(size))}) - set(gone)

    @precondition(lambda self: len(list(self.pool)) > 0)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from([entry.key for entry in self.pool]))
        self.count += 1
        self.pool.acquire(chosen, f"r{self.count}")
        self.budget_for[f"r{self.count}"] = chosen

    @precondition(lambda self: bool(self.budget_for))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(sorted(self.budget_for)))
        self.pool.release(self.budget_for.pop(reader), reader)

    @precondition(lambda self: len(list(self.pool)) > 0)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from([entry.key for entry in self.pool]))
        assert self.pool.drop(chosen) == (chosen not in self.budget_for.values())

    @invariant()
    def balanced(self) -> None:
        self.pool.check()
        assert all(chosen in self.pool for chosen in self.budget_for.values())


Traffic.TestCase.settings = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TestTraffic = Traffic.TestCase
