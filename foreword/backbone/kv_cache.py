"""The KV cache of a serving engine: a pool of tokens that many sequences read, and a row of own tokens for each sequence."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.prompts.tokens import KVPrefix
from foreword.shape import ModelShape


@final
class SharedKVPool:
    """Keys and values [C, K, D] of every layer for C tokens: prefixes and cached texts, each stored once. A token's slot is its index.

    `SlotAllocator` keeps which slots are in use. A sequence can read any list of slots, so nothing is moved or copied.
    """

    def __init__(self, shape: ModelShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self.keys = [torch.zeros(0, kv.heads, kv.dim, dtype=dtype, device=device) for kv in shape.kv]
        self.values = [torch.zeros_like(keys) for keys in self.keys]

    @property
    def capacity(self) -> int:
        return len(self.keys[0])

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    @torch.inference_mode()
    def resize(self, capacity: int) -> None:
        """Grow or shrink to C tokens; slots below C keep their contents."""
        for side in (self.keys, self.values):
            for layer, old in enumerate(side):
                new = old.new_zeros(capacity, *old.shape[1:])
                kept = min(capacity, len(old))
                new[:kept] = old[:kept]
                side[layer] = new

    @torch.inference_mode()
    def put(self, slots: Int[Tensor, " P"], prefix: KVPrefix) -> None:
        """Store a prefix; layers that it leaves out get zeros there."""
        for layer in range(len(self.keys)):
            for side, parts in ((self.keys, prefix.keys), (self.values, prefix.values)):
                part = parts.get(layer)
                side[layer][slots] = 0 if part is None else part.transpose(0, 1).to(side[layer])

    @torch.inference_mode()
    def copy(self, slots: Int[Tensor, " N"], source: SequenceKVCache, row: int, begin: int) -> None:
        """Store tokens of a sequence, from its own `begin` on, for others to read."""
        for targets, sources in ((self.keys, source.keys), (self.values, source.values)):
            for target, given in zip(targets, sources, strict=True):
                target[slots] = given[row, :, begin : begin + len(slots)].transpose(0, 1)


@final
class SequenceKVCache:
    """Keys and values [S, K, L, D] of every layer for S sequences of up to L tokens of their own: one row a sequence."""

    def __init__(self, shape: ModelShape, count: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.keys = [torch.zeros(count, kv.heads, length, kv.dim, dtype=dtype, device=device) for kv in shape.kv]
        self.values = [torch.zeros_like(keys) for keys in self.keys]

    @property
    def count(self) -> int:
        return self.keys[0].shape[0]

    @property
    def length(self) -> int:
        return self.keys[0].shape[2]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    @torch.inference_mode()
    def grow(self, length: int) -> None:
        """Make every row L tokens long."""
        for side in (self.keys, self.values):
            for layer, old in enumerate(side):
                new = old.new_zeros(*old.shape[:2], length, old.shape[3])
                new[:, :, : old.shape[2]] = old
                side[layer] = new

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Copy one row's first tokens to another row, so that running sequences fill the first rows."""
        for side in (self.keys, self.values):
            for tensor in side:
                tensor[target, :, :length] = tensor[source, :, :length]

    def read(self, row: int, layer: int, length: int) -> tuple[Float[Tensor, "K N D"], Float[Tensor, "K N D"]]:
        """What a sequence has stored so far."""
        return self.keys[layer][row, :, :length], self.values[layer][row, :, :length]
