"""The paged KV cache of a serving engine: one pool of tokens for prefixes, cached texts and running sequences (vLLM's PagedAttention, arXiv:2309.06180)."""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.prompts.tokens import KVPrefix
from foreword.shape import ModelShape

NULL_SLOT = 0  # never allocated and always zero: what pads of a slot table read


@final
class PagedKVCache:
    """Keys and values [C, K, D] of every layer for C slots of one token each. A sequence reads any list of slots, so nothing is moved.

    `SlotAllocator` keeps which slots are in use. The tensors are made at first use; on a CPU a slot takes memory once it is written.
    """

    def __init__(self, shape: ModelShape, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.capacity, self.dtype, self.device = shape, capacity, dtype, device
        self._buffers: dict[str, Tensor] = {}

    @property
    def slot_bytes(self) -> int:
        """Bytes of one token in all layers."""
        return slot_bytes(self.shape, self.dtype)

    @cached_property
    def keys(self) -> list[Tensor]:
        """By layer."""
        return self._empty()

    @cached_property
    def values(self) -> list[Tensor]:
        """By layer."""
        return self._empty()

    def _empty(self) -> list[Tensor]:
        sides = [torch.empty(self.capacity, kv.heads, kv.dim, dtype=self.dtype, device=self.device) for kv in self.shape.kv]
        for side in sides:
            side[NULL_SLOT] = 0
        return sides

    def write(self, layer: int, slots: Int[Tensor, " N"], key: Float[Tensor, "N K D"], value: Float[Tensor, "N K D"]) -> None:
        """Store one layer's keys and values of new tokens."""
        self.keys[layer].index_copy_(0, slots, key.to(self.dtype))
        self.values[layer].index_copy_(0, slots, value.to(self.dtype))

    @torch.inference_mode()
    def put(self, slots: Int[Tensor, " P"], prefix: KVPrefix) -> None:
        """Store a prefix; layers that it leaves out get zeros there."""
        for layer in range(len(self.keys)):
            for side, parts in ((self.keys, prefix.keys), (self.values, prefix.values)):
                part = parts.get(layer)
                side[layer][slots] = 0 if part is None else part.transpose(0, 1).to(side[layer])

    def gather(self, layer: int, slots: Int[Tensor, "B N"]) -> tuple[Float[Tensor, "B K N D"], Float[Tensor, "B K N D"]]:
        """Keys and values of one layer, row by row. They lie in two buffers, which the next call uses again."""
        found = []
        for name, side in (("keys", self.keys[layer]), ("values", self.values[layer])):
            rows = torch.index_select(side, 0, slots.flatten(), out=self._buffer(name, slots.numel(), side))
            found.append(rows.view(*slots.shape, *side.shape[1:]).transpose(1, 2))
        return found[0], found[1]

    def _buffer(self, name: str, count: int, side: Tensor) -> Tensor:
        """Memory for `count` tokens: fresh memory for each call would cost more time than the copy."""
        need = count * side[0].numel()
        if name not in self._buffers or len(self._buffers[name]) < need:
            self._buffers[name] = side.new_empty(need)
        return self._buffers[name][:need].view(count, *side.shape[1:])


def slot_bytes(shape: ModelShape, dtype: torch.dtype) -> int:
    """Bytes of one token's keys and values in all layers."""
    return sum(kv.width for kv in shape.kv) * dtype.itemsize
