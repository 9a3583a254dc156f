"""The prefix cache: texts whose keys and values stay in memory, as blocks of tokens in a tree. No tensors; `CachedPrefill` has those."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from foreword.serving.adapter_cache import AdapterKey

BLOCK_SIZE = 16  # tokens: what is shared is whole blocks
MIN_BLOCKS = 2  # a shorter match is not faster than prefilling again
MAX_REMEMBERED = 1024  # beginnings of texts that are remembered, to find repeated ones

Root = AdapterKey | None  # the version of a task whose prefix comes before a text, or nothing


@dataclass(eq=False)
class Block:
    """BLOCK_SIZE tokens after those of `parent`: the slots of their keys and values, and the ids of the requests that read them (`refs`)."""

    tokens: tuple[int, ...]
    slots: tuple[int, ...]
    parent: Block | None
    root: Root
    children: dict[tuple[int, ...], Block] = field(default_factory=dict)
    refs: set[str] = field(default_factory=set)
    last_used: int = 0


@final
class PrefixCache:
    """Blocks within a budget of tokens, each root's texts a tree. A text is worth caching when it comes a second time; the least recently used leaf is evicted first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._roots: dict[Root, dict[tuple[int, ...], Block]] = {}
        self._recent: OrderedDict[tuple[Root, tuple[int, ...]], tuple[tuple[int, ...], ...]] = OrderedDict()
        self._clock = 0

    def __iter__(self) -> Iterator[Block]:
        blocks = [block for children in self._roots.values() for block in children.values()]
        while blocks:
            block = blocks.pop()
            yield block
            blocks.extend(block.children.values())

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache."""
        return sum(BLOCK_SIZE for _ in self)

    def num_repeated(self, root: Root, ids: Sequence[int]) -> int:
        """How many blocks a text has in common with the last one of the same beginning; the text is then remembered."""
        name, mine = (root, tuple(ids[:BLOCK_SIZE])), tuple(split_blocks(ids))
        last = self._recent.pop(name, ())
        self._recent[name] = mine
        if len(self._recent) > MAX_REMEMBERED:
            self._recent.popitem(last=False)
        return next((i for i, (a, b) in enumerate(zip(mine, last, strict=False)) if a != b), min(len(mine), len(last)))

    def match(self, root: Root, ids: Sequence[int]) -> list[Block]:
        """The cached blocks of a text, from its beginning on."""
        found: list[Block] = []
        children = self._roots.get(root, {})
        for tokens in split_blocks(ids):
            block = children.get(tokens)
            if block is None:
                break
            found.append(block)
            children = block.children
        return found

    def hit(self, root: Root, ids: Sequence[int]) -> list[Block]:
        """The cached blocks that a sequence reads: those that match, if they are enough to save time."""
        found = self.match(root, ids)
        return found if len(found) >= MIN_BLOCKS else []

    def evict(self, count: int) -> list[tuple[int, ...]] | None:
        """Evict enough for so many blocks. Returns the slots of those evicted, or None, with nothing evicted, if requests read too many."""
        missing = self.num_tokens + count * BLOCK_SIZE - self.budget
        gone: list[Block] = []
        while missing > 0:
            leaves = [block for block in self if not block.refs and all(child in gone for child in block.children.values())]
            oldest = min((block for block in leaves if block not in gone), key=lambda block: block.last_used, default=None)
            if oldest is None:
                return None
            gone.append(oldest)
            missing -= BLOCK_SIZE
        for block in gone:
            self._remove(block)
        return [block.slots for block in gone]

    def add(self, root: Root, before: Sequence[Block], ids: Sequence[int], slots: Sequence[int]) -> list[Block]:
        """Add blocks of tokens behind those that are cached already; `slots` holds BLOCK_SIZE for each."""
        chain: list[Block] = []
        parent = before[-1] if before else None
        for index, tokens in enumerate(split_blocks(ids)):
            own = tuple(slots[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])
            block = Block(tokens, own, parent, root, last_used=self._tick())
            self._siblings(block)[tokens] = block
            chain.append(block)
            parent = block
        return chain

    def acquire(self, blocks: Sequence[Block], request_id: str) -> None:
        """Note a request that reads blocks, which stay until it releases them."""
        for block in blocks:
            block.refs.add(request_id)
            block.last_used = self._tick()

    def release(self, blocks: Sequence[Block], request_id: str) -> None:
        """The request no longer reads them."""
        for block in blocks:
            block.refs.discard(request_id)

    def remove(self, root: Root) -> list[tuple[int, ...]]:
        """Remove all texts behind a prefix that leaves memory; their slots."""
        gone = [block for block in self if block.root == root] if root in self._roots else []
        self._roots.pop(root, None)
        return [block.slots for block in gone]

    def check(self) -> None:
        """Raise AssertionError if the counts do not add up."""
        assert self.num_tokens <= self.budget, f"{self.num_tokens} tokens are cached, but the budget is {self.budget}"
        for block in self:
            assert len(block.tokens) == len(block.slots) == BLOCK_SIZE, "a block is not full"
            assert block.parent is None or block.parent.refs >= block.refs, "a block is read without what stands before it"

    def _siblings(self, block: Block) -> dict[tuple[int, ...], Block]:
        return block.parent.children if block.parent else self._roots.setdefault(block.root, {})

    def _remove(self, block: Block) -> None:
        del self._siblings(block)[block.tokens]
        if block.parent is None and not self._roots[block.root]:
            del self._roots[block.root]

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def split_blocks(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The full blocks of a text."""
    for begin in range(0, len(ids) - BLOCK_SIZE + 1, BLOCK_SIZE):
        yield tuple(ids[begin : begin + BLOCK_SIZE])
