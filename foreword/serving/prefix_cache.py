"""The prefix cache: texts whose keys and values stay in memory, as blocks of tokens in a tree (vLLM's automatic prefix caching). No tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from foreword.serving.adapter_cache import AdapterKey

BLOCK_SIZE = 16  # tokens: what is shared, and what a sequence's memory grows by

Root = AdapterKey | None  # the version of a task whose prefix or weights a text is read with, or nothing


@dataclass(eq=False)
class Block:
    """BLOCK_SIZE tokens after those of `parent`, the slots of their keys and values, and how many sequences read them (`refs`).

    `computed` is False until the step that computes them has run.
    """

    tokens: tuple[int, ...]
    slots: tuple[int, ...]
    parent: Block | None
    root: Root
    children: dict[tuple[int, ...], Block] = field(default_factory=dict)
    refs: int = 0
    computed: bool = False


@final
class PrefixCache:
    """A tree of blocks for each root. A block that no sequence reads stays until its memory is needed; the least recently used leaf goes first."""

    def __init__(self) -> None:
        self._roots: dict[Root, dict[tuple[int, ...], Block]] = {}
        self._idle: OrderedDict[Block, None] = OrderedDict()  # leaves that nobody reads, the least recently used first
        self.num_blocks = 0
        self.num_unread = 0  # blocks that can be evicted, each after those behind it

    def __iter__(self) -> Iterator[Block]:
        blocks = [block for children in self._roots.values() for block in children.values()]
        while blocks:
            block = blocks.pop()
            yield block
            blocks.extend(block.children.values())

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache."""
        return BLOCK_SIZE * self.num_blocks

    def match(self, root: Root, ids: Sequence[int]) -> list[Block]:
        """The cached blocks of a text, from its beginning on."""
        found: list[Block] = []
        children = self._roots.get(root, {})
        for begin in range(0, len(ids) - BLOCK_SIZE + 1, BLOCK_SIZE):
            block = children.get(tuple(ids[begin : begin + BLOCK_SIZE]))
            if block is None:
                break
            found.append(block)
            children = block.children
        return found

    def add(self, root: Root, parent: Block | None, tokens: tuple[int, ...], slots: tuple[int, ...]) -> Block:
        """The block of these tokens behind `parent`, made of `slots` unless there is one already. Its caller reads it."""
        siblings = parent.children if parent else self._roots.setdefault(root, {})
        block = siblings.get(tokens)
        if block is None:
            block = siblings[tokens] = Block(tokens, slots, parent, root)
            self.num_blocks += 1
            self.num_unread += 1
            if parent is not None:
                self._idle.pop(parent, None)
        self.acquire([block])
        return block

    def acquire(self, blocks: Sequence[Block]) -> None:
        """Note a sequence that reads blocks, which stay until it releases them."""
        for block in blocks:
            self.num_unread -= not block.refs
            block.refs += 1
            self._idle.pop(block, None)

    def release(self, blocks: Sequence[Block]) -> list[tuple[int, ...]]:
        """The sequence no longer reads them. Returns the slots of those that were never computed, which are removed."""
        freed = []
        for block in reversed(blocks):  # leaves first
            block.refs -= 1
            self.num_unread += not block.refs
            if not block.refs and not block.computed:
                assert not block.children, "a computed block stands behind one that is not"
                freed.append(self._remove(block))
            elif not block.refs and not block.children:
                self._idle[block] = None
        return freed

    def evict(self) -> tuple[int, ...]:
        """Remove the least recently used block that nobody reads, of which there must be one; its slots."""
        block = next(iter(self._idle))
        slots = self._remove(block)
        parent = block.parent
        if parent is not None and not parent.refs and not parent.children:
            self._idle[parent] = None
            self._idle.move_to_end(parent, last=False)  # the rest of a text goes before other texts
        return slots

    def remove(self, root: Root) -> list[tuple[int, ...]]:
        """Remove all texts behind a prefix that leaves memory, which nobody reads any more; their slots."""
        gone = [block for block in self if block.root == root] if root in self._roots else []
        assert not any(block.refs for block in gone), "a text is read whose prefix leaves memory"
        for block in gone:
            self._idle.pop(block, None)
        self.num_blocks -= len(gone)
        self.num_unread -= len(gone)
        self._roots.pop(root, None)
        return [block.slots for block in gone]

    def check(self) -> None:
        """Raise AssertionError if the counts do not add up."""
        assert self.num_blocks == sum(1 for _ in self), "the number of blocks is wrong"
        assert self.num_unread == sum(not block.refs for block in self), "the number of unread blocks is wrong"
        for block in self:
            assert len(block.tokens) == len(block.slots) == BLOCK_SIZE, "a block is not full"
            assert block.parent is None or block.parent.refs >= block.refs, "a block is read without what stands before it"
            assert (block in self._idle) == (not block.refs and not block.children), "a block that may be evicted is not known as such"

    def _remove(self, block: Block) -> tuple[int, ...]:
        siblings = block.parent.children if block.parent else self._roots[block.root]
        del siblings[block.tokens]
        if block.parent is None and not siblings:
            del self._roots[block.root]
        self._idle.pop(block, None)
        self.num_blocks -= 1
        self.num_unread -= 1
        return block.slots
