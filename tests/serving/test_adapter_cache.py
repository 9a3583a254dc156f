"""The adapter cache: within its budget, never without an adapter that is read, least recently used evicted first."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.errors import CapacityError
from foreword.serving.adapter_cache import AdapterCache, AdapterKey


def key(task: str, digest: str = "1") -> AdapterKey:
    return AdapterKey(task, digest)


def test_the_least_recently_read_leaves_first() -> None:
    cache = AdapterCache(30)
    assert [cache.add(key(task), 10) for task in "abc"] == [[], [], []]
    cache.acquire(key("a"), "r1")
    cache.release(key("a"), "r1")
    assert cache.add(key("d"), 15) == [key("b"), key("c")]
    assert {entry.key.task for entry in cache} == {"a", "d"} and cache.num_bytes == 25


def test_what_is_read_or_pinned_stays_and_a_refusal_changes_nothing() -> None:
    cache = AdapterCache(30)
    cache.add(key("a"), 10)
    cache.acquire(key("a"), "r1")
    cache.add(key("b"), 10, pinned=True)
    cache.add(key("c"), 10)
    with pytest.raises(CapacityError) as caught:
        cache.add(key("d"), 15)
    assert str(caught.value) == (
        "the prefix of task 'd' needs 15 bytes, but 20 of the 30 for prefixes are in use; "
        "try again later, unpin a task, or give the server more memory for prefixes."
    )
    assert {entry.key.task for entry in cache} == {"a", "b", "c"}
    cache.pin(key("b"), pinned=False)
    assert cache.add(key("d"), 15) == [key("b"), key("c")]


def test_a_replaced_version_leaves_when_its_last_reader_has() -> None:
    cache = AdapterCache(30)
    cache.add(key("a", "1"), 10, pinned=True)
    cache.acquire(key("a", "1"), "r1")
    cache.add(key("a", "2"), 10)
    assert not cache.remove(key("a", "1")) and key("a", "1") in cache
    cache.release(key("a", "1"), "r1")
    assert cache.remove(key("a", "1")) and key("a", "1") not in cache and key("a", "2") in cache


class Traffic(RuleBasedStateMachine):
    """Any order of requests, pins and replacements."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = AdapterCache(100)
        self.reading: dict[str, AdapterKey] = {}
        self.count = 0

    @rule(task=st.sampled_from("abcdef"), size=st.integers(0, 60), pinned=st.booleans())
    def add(self, task: str, size: int, pinned: bool) -> None:
        before = {entry.key for entry in self.cache}
        held = {entry.key for entry in self.cache if not entry.evictable}
        try:
            gone = self.cache.add(key(task, str(size)), size, pinned=pinned)
        except CapacityError:
            assert {entry.key for entry in self.cache} == before
            return
        assert held.isdisjoint(gone) and {entry.key for entry in self.cache} == (before | {key(task, str(size))}) - set(gone)

    @precondition(lambda self: len(list(self.cache)) > 0)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from([entry.key for entry in self.cache]))
        self.count += 1
        self.cache.acquire(chosen, f"r{self.count}")
        self.reading[f"r{self.count}"] = chosen

    @precondition(lambda self: bool(self.reading))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(sorted(self.reading)))
        self.cache.release(self.reading.pop(reader), reader)

    @precondition(lambda self: len(list(self.cache)) > 0)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from([entry.key for entry in self.cache]))
        assert self.cache.remove(chosen) == (chosen not in self.reading.values())

    @invariant()
    def balanced(self) -> None:
        self.cache.check()
        assert all(chosen in self.cache for chosen in self.reading.values())


Traffic.TestCase.settings = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TestTraffic = Traffic.TestCase
