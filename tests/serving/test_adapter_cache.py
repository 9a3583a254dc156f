"""The adapter cache: never without an adapter that is read, least recently used evicted first."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.serving.adapter_cache import AdapterCache, AdapterKey


def key(task: str, digest: str = "1") -> AdapterKey:
    return AdapterKey(task, digest)


def test_the_least_recently_read_leaves_first() -> None:
    cache = AdapterCache()
    for task in "abc":
        cache.add(key(task), 10)
    cache.acquire(key("a"), "r1")
    assert cache.evictable_bytes == 20
    cache.release(key("a"), "r1")
    assert [cache.evict().key.task for _ in range(2)] == ["b", "c"]
    assert {entry.key.task for entry in cache} == {"a"} and cache.num_bytes == cache.evictable_bytes == 10


def test_what_is_read_or_pinned_stays() -> None:
    cache = AdapterCache()
    cache.add(key("a"), 10)
    cache.acquire(key("a"), "r1")
    cache.add(key("b"), 10, pinned=True)
    cache.add(key("c"), 10)
    assert cache.evictable_bytes == 10 and cache.evict().key == key("c") and cache.evictable_bytes == 0
    cache.pin(key("b"), pinned=False)
    assert cache.evict().key == key("b")


def test_a_replaced_version_leaves_when_its_last_reader_has() -> None:
    cache = AdapterCache()
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
        self.cache = AdapterCache()
        self.reading: dict[str, AdapterKey] = {}
        self.count = 0

    @rule(task=st.sampled_from("abcdef"), size=st.integers(0, 60), pinned=st.booleans())
    def add(self, task: str, size: int, pinned: bool) -> None:
        if key(task, str(size)) not in self.cache:
            self.cache.add(key(task, str(size)), size, pinned=pinned)

    @precondition(lambda self: any(entry.evictable for entry in self.cache))
    @rule()
    def evict(self) -> None:
        held = {entry.key for entry in self.cache if not entry.evictable}
        before = self.cache.num_bytes
        gone = self.cache.evict()
        assert gone.key not in held and held <= {entry.key for entry in self.cache} and self.cache.num_bytes == before - gone.num_bytes

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
        assert (self.cache.remove(chosen) is not None) == (chosen not in self.reading.values())

    @invariant()
    def balanced(self) -> None:
        self.cache.check()
        assert all(chosen in self.cache for chosen in self.reading.values())


Traffic.TestCase.settings = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TestTraffic = Traffic.TestCase
