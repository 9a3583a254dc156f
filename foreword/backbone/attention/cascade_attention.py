"""Attention of one serving step over [tokens of the shared pool | each sequence's own tokens], without concatenating the two.

    weights = softmax([q·k_poolᵀ, q·k_ownᵀ]·scaling),  output = w_pool·v_pool + w_own·v_own

Rows that read the same tokens of the pool form a group, which reads them in one matrix product; they are stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foreword.backbone.kv_cache import SequenceKVCache, SharedKVPool
from foreword.shape import ModelShape


@dataclass(frozen=True)
class SharedContext:
    """What B rows in U groups read of the shared pool; `group` [B] names each row's group. Rows stay the same over many steps.

    `slots` [U, N] are those of a group's tokens in the pool and `positions` [U, N] their positions; `real` [U, N] is False on pads, and `pinned`
    [U, N] marks tokens that stay visible in every sliding window.
    """

    slots: Int[Tensor, "U N"]
    positions: Int[Tensor, "U N"]
    real: Bool[Tensor, "U N"]
    pinned: Bool[Tensor, "U N"]
    group: Int[Tensor, " B"]

    @cached_property
    def rows_of_group(self) -> Int[Tensor, "U G"]:
        """The rows of each group, in order; a group with fewer rows than another repeats row 0, whose extra results are not used."""
        counts = torch.bincount(self.group, minlength=len(self.slots))
        table = self.group.new_zeros(len(self.slots), int(counts.max()))
        table[self.group, self.index_in_group] = torch.arange(len(self.group), device=self.group.device)
        return table

    @cached_property
    def index_in_group(self) -> Int[Tensor, " B"]:
        """How many earlier rows are of the same group."""
        same = self.group[:, None] == self.group[None, :]
        return (same.tril(-1)).sum(1)

    @cached_property
    def one_row_per_group(self) -> bool:
        """Whether every row is a group of its own, in order."""
        return bool(len(self.slots) == len(self.group)) and bool(
            (self.group == torch.arange(len(self.group), device=self.group.device)).all()
        )


@final
@dataclass(frozen=True)
class CascadeAttention:
    """The hook and backend of one step of serving.

    Row b is row `first` + b of the cache; its new tokens are the last `counts[b]` of T columns and follow `starts[b]` stored ones. Either
    every row brings one token (T = 1), or all rows are new (`starts` 0). `positions` [B, T] are those of the new tokens, `offset` [B]
    that of each row's first token of its own.
    """

    modules: Mapping[nn.Module, int]
    shape: ModelShape
    pool: SharedKVPool
    cache: SequenceKVCache
    context: SharedContext | None
    starts: Int[Tensor, " B"]
    counts: Int[Tensor, " B"]
    positions: Int[Tensor, "B T"]
    offset: Int[Tensor, " B"]
    first: int = 0

    def attention(
        self,
        module: nn.Module,
        query: Float[Tensor, "B A T D"],
        key: Float[Tensor, "B K T D"],
        value: Float[Tensor, "B K T O"],
        scaling: float | None,
    ) -> Float[Tensor, "B T A O"]:
        """Store the step's keys and values, then attend to everything each row may see."""
        layer = self.modules[module]
        keys, values = self._own(layer, key, value)
        batch, heads, length, dim = query.shape
        packed = query.reshape(batch, key.shape[1], -1, dim)
        scores = [torch.matmul(packed, keys.transpose(2, 3))]
        seen = [self._visible_own(layer, keys.shape[2])]
        stored = None
        if self.context is not None:
            stored = self._stored(layer)
            scores.insert(0, self._shared(packed, stored[0].transpose(2, 3)))
            seen.insert(0, self._visible_stored(layer))
        joined = torch.cat(scores, 3).float() * (dim**-0.5 if scaling is None else scaling)
        mask = torch.cat(seen, 2)[:, None].expand(-1, heads, -1, -1)
        joined = joined.view(batch, heads, length, -1).masked_fill_(~mask, torch.finfo(torch.float32).min)
        weights = joined.softmax(3).to(value.dtype).view(batch, key.shape[1], -1, joined.shape[3])
        split = joined.shape[3] - keys.shape[2]
        found = torch.matmul(weights[..., split:], values)
        if stored is not None:
            found = found + self._shared(weights[..., :split].contiguous(), stored[1])
        return found.view(batch, heads, length, -1).transpose(1, 2)

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same as concatenated keys, values and mask, for families whose own attention must run; it copies, so it is slower."""
        layer = self.modules[module]
        keys, values = self._own(layer, key, value)
        seen = [self._visible_own(layer, keys.shape[2])]
        if self.context is not None:
            own = self.context.group
            stored_keys, stored_values = (side[own] for side in self._stored(layer))
            keys, values = torch.cat([stored_keys, keys], 2), torch.cat([stored_values, values], 2)
            seen.insert(0, self._visible_stored(layer))
        joined = torch.cat(seen, 2)[:, None]
        if mask.dtype != torch.bool:
            joined = torch.zeros_like(joined, dtype=mask.dtype).masked_fill(~joined, torch.finfo(mask.dtype).min)
        return keys, values, joined

    def _own(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values, and return all of the rows' own: views if each row has one new token."""
        keys, values, rows = self.cache.keys[layer], self.cache.values[layer], len(key)
        if key.shape[2] == 1:
            here = slice(self.first, self.first + rows)
            index = torch.arange(rows, device=key.device) + self.first
            keys[index, :, self.starts] = key[:, :, 0].to(keys.dtype)
            values[index, :, self.starts] = value[:, :, 0].to(values.dtype)
            return keys[here, :, : self.longest], values[here, :, : self.longest]
        for row, count in enumerate(self.counts.tolist(), self.first):
            keys[row, :, :count] = key[row - self.first, :, key.shape[2] - count :]
            values[row, :, :count] = value[row - self.first, :, key.shape[2] - count :]
        return key, value

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row, the new one included."""
        return int(self.starts.max()) + 1

    def _stored(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [U, K, N, D] of the pool, gathered for this step once for each group."""
        assert self.context is not None
        pool_slots = self.context.slots
        keys, values = (
            side[layer].index_select(0, pool_slots.flatten()).view(*pool_slots.shape, *side[layer].shape[1:]).transpose(1, 2)
            for side in (self.pool.keys, self.pool.values)
        )
        return keys, values

    def _shared(self, rows: Float[Tensor, "B K R X"], stored: Float[Tensor, "U K X Y"]) -> Float[Tensor, "B K R Y"]:
        """rows · stored, in one product for all rows of a group."""
        context = self.context
        assert context is not None
        if context.one_row_per_group:
            return torch.matmul(rows, stored)
        batch, heads, each, width = rows.shape
        grouped = rows[context.rows_of_group].transpose(1, 2).reshape(len(stored), heads, -1, width)  # [U, K, G·R, X]
        found = torch.matmul(grouped, stored).view(len(stored), heads, -1, each, stored.shape[3]).transpose(1, 2)
        return found[context.group, context.index_in_group]

    def _visible_own(self, layer: int, width: int) -> Bool[Tensor, "B T N"]:
        """Which of a row's own tokens each new token sees: those before it and itself, within the layer's window."""
        window = self.shape.kv[layer].window
        return self._masks[window] if window in self._masks else self._masks.setdefault(window, self._mask_of(window, width))

    @cached_property
    def _masks(self) -> dict[int | None, Bool[Tensor, "B T N"]]:
        return {}

    def _mask_of(self, window: int | None, width: int) -> Bool[Tensor, "B T N"]:
        index = torch.arange(width, device=self.positions.device)
        if self.positions.shape[1] == 1:
            own = self.offset[:, None] + index  # [B, N] positions of stored tokens
            seen = index[None] <= self.starts[:, None]
        else:
            own = self.positions
            seen = index[None] >= width - self.counts[:, None]
        visible = seen[:, None] & (own[:, None] <= self.positions[:, :, None])
        return visible if window is None else visible & (self.positions[:, :, None] - own[:, None] < window)

    def _visible_stored(self, layer: int) -> Bool[Tensor, "B T N"]:
        context = self.context
        assert context is not None
        window = self.shape.kv[layer].window
        real = context.real[context.group][:, None]
        if window is None:
            return real.expand(-1, self.positions.shape[1], -1)
        near = self.positions[:, :, None] - context.positions[context.group][:, None] < window
        return real & (near | context.pinned[context.group][:, None])
