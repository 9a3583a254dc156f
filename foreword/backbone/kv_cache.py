"""Where served keys and values live: an arena of tokens that many sequences read, and a dense place for each sequence's own."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.prompts.tokens import KVPrefix
from foreword.shape import ModelShape


@final
class SharedKVPool:
    """Keys and values [C, K, D] of every layer for C tokens: prefixes and shared texts, each stored once. A token's place is its index.

    Which places are taken is kept elsewhere; a row reads any list of places, so nothing is ever moved or copied for a sequence.
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
        """Make room for C tokens, or give room at the end back; what stands below stays."""
        for side in (self.keys, self.values):
            for layer, old in enumerate(side):
                new = old.new_zeros(capacity, *old.shape[1:])
                kept = min(capacity, len(old))
                new[:kept] = old[:kept]
                side[layer] = new

    @torch.inference_mode()
    def put(self, places: Int[Tensor, " P"], prefix: KVPrefix) -> None:
        """Store a prefix; layers that it leaves out keep nothing there."""
        for layer in range(len(self.keys)):
            for side, parts in ((self.keys, prefix.keys), (self.values, prefix.values)):
                part = parts.get(layer)
                side[layer][places] = 0 if part is None else part.transpose(0, 1).to(side[layer])

    @torch.inference_mode()
    def copy(self, places: Int[Tensor, " N"], slots: Slots, slot: int, begin: int) -> None:
        """Store tokens of a sequence, from its own `begin` on, for others to read."""
        for mine, theirs in ((self.keys, slots.keys), (self.values, slots.values)):
            for to, given in zip(mine, theirs, strict=True):
                to[places] = given[slot, :, begin : begin + len(places)].transpose(0, 1)


@final
class Slots:
    """Keys and values [S, K, L, D] of every layer for S sequences of up to L tokens of their own."""

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
        """Make every place L tokens long."""
        for side in (self.keys, self.values):
            for layer, old in enumerate(side):
                new = old.new_zeros(*old.shape[:2], length, old.shape[3])
                new[:, :, : old.shape[2]] = old
                side[layer] = new

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Copy one sequence's first tokens to another place, so that the sequences at work stand together."""
        for side in (self.keys, self.values):
            for tensor in side:
                tensor[target, :, :length] = tensor[source, :, :length]

    def read(self, slot: int, layer: int, length: int) -> tuple[Float[Tensor, "K N D"], Float[Tensor, "K N D"]]:
        """What a sequence has stored so far."""
        return self.keys[layer][slot, :, :length], self.values[layer][slot, :, :length]
