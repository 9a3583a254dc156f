"""Texts whose keys and values stay in memory, without tensors: blocks of tokens in a tree that is rooted in what stands before them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from foreword.serving.adapter_cache import Key

BLOCK = 16  # tokens: what is shared is whole blocks
LEAST = 2  # blocks: a shorter text is read again as fast
REMEMBERED = 1024  # texts that are remembered, to see which come again

Root = Key | None  # the version of a task whose prefix stands before a text, or nothing


@dataclass(eq=False)
class Block:
    """Keys and values of BLOCK tokens after those of `parent`: their places in the arena, who reads them, when last."""

    tokens: tuple[int, ...]
    places: tuple[int, ...]
    parent: Block | None
    root: Root
    children: dict[tuple[int, ...], Block] = field(default_factory=dict)
    readers: set[str] = field(default_factory=set)
    used: int = 0


@final
class PrefixCache:
    """Blocks within a budget of tokens. A text is worth storing when it comes a second time; the leaf nobody has read for longest leaves first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._roots: dict[Root, dict[tuple[int, ...], Block]] = {}
        self._seen: OrderedDict[tuple[Root, tuple[int, ...]], tuple[tuple[int, ...], ...]] = OrderedDict()
        self._clock = 0

    def __iter__(self) -> Iterator[Block]:
        ends = [block for children in self._roots.values() for block in children.values()]
        while ends:
            block = ends.pop()
            yield block
            ends.extend(block.children.values())

    @property
    def tokens(self) -> int:
        """Tokens stored."""
        return sum(BLOCK for _ in self)

    def common(self, root: Root, ids: Sequence[int]) -> int:
        """How many blocks this text has in common with the last one that began alike; it is remembered from now on."""
        name, mine = (root, tuple(ids[:BLOCK])), tuple(pieces(ids))
        last = self._seen.pop(name, ())
        self._seen[name] = mine
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return next((i for i, (a, b) in enumerate(zip(mine, last, strict=False)) if a != b), min(len(mine), len(last)))

    def match(self, root: Root, ids: Sequence[int]) -> list[Block]:
        """The blocks that are stored of a text, from its beginning on."""
        found: list[Block] = []
        children = self._roots.get(root, {})
        for piece in pieces(ids):
            block = children.get(piece)
            if block is None:
                break
            found.append(block)
            children = block.children
        return found

    def room(self, count: int) -> list[tuple[int, ...]] | None:
        """Make room for so many blocks: the places of those that left, or None, and nothing left, where readers hold too many."""
        missing = self.tokens + count * BLOCK - self.budget
        gone: list[Block] = []
        while missing > 0:
            leaves = [block for block in self if not block.readers and all(child in gone for child in block.children.values())]
            free = min((block for block in leaves if block not in gone), key=lambda block: block.used, default=None)
            if free is None:
                return None
            gone.append(free)
            missing -= BLOCK
        for block in gone:
            self._remove(block)
        return [block.places for block in gone]

    def add(self, root: Root, before: Sequence[Block], ids: Sequence[int], places: Sequence[int]) -> list[Block]:
        """Note blocks of tokens behind those that are there already; `places` holds BLOCK for each."""
        chain: list[Block] = []
        parent = before[-1] if before else None
        for index, piece in enumerate(pieces(ids)):
            block = Block(piece, tuple(places[index * BLOCK : (index + 1) * BLOCK]), parent, root, used=self._tick())
            self._siblings(block)[piece] = block
            chain.append(block)
            parent = block
        return chain

    def acquire(self, blocks: Sequence[Block], reader: str) -> None:
        """A request reads these; they stay until it releases them."""
        for block in blocks:
            block.readers.add(reader)
            block.used = self._tick()

    def release(self, blocks: Sequence[Block], reader: str) -> None:
        for block in blocks:
            block.readers.discard(reader)

    def drop(self, root: Root) -> list[tuple[int, ...]]:
        """Forget all texts behind a prefix that leaves memory; their places."""
        gone = [block for block in self if block.root == root] if root in self._roots else []
        self._roots.pop(root, None)
        return [block.places for block in gone]

    def check(self) -> None:
        """Raise AssertionError if the books do not balance."""
        assert self.tokens <= self.budget, f"{self.tokens} tokens are stored, but the budget is {self.budget}"
        for block in self:
            assert len(block.tokens) == len(block.places) == BLOCK, "a block is not whole"
            assert block.parent is None or block.parent.readers >= block.readers, "a block is read without what stands before it"

    def _siblings(self, block: Block) -> dict[tuple[int, ...], Block]:
        return block.parent.children if block.parent else self._roots.setdefault(block.root, {})

    def _remove(self, block: Block) -> None:
        del self._siblings(block)[block.tokens]
        if block.parent is None and not self._roots[block.root]:
            del self._roots[block.root]

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def pieces(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The whole blocks of a text."""
    for begin in range(0, len(ids) - BLOCK + 1, BLOCK):
        yield tuple(ids[begin : begin + BLOCK])
