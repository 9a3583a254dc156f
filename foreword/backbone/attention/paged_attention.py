"""Attention of one serving step: the new tokens of any sequences in one line, each of which reads its own list of slots of the paged KV cache.

Tokens are computed without padding; only inside attention are sequences put together: those with equally many new tokens in one batch.
Sequences that read the same first slots (a task's prefix, a cached text) read them in one product, merged by the log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foreword.backbone.attention.hooks import Attend
from foreword.backbone.attention.merge_attention import attention_with_lse, merge
from foreword.backbone.kv_cache import NULL_SLOT, PagedKVCache
from foreword.shape import ModelShape

MAX_QUERIES = 128  # of one row of attention; longer runs of new tokens are split, which bounds masks and scores
SHORT = 16  # rows of so few queries share a batch
MIN_SHARED = 256  # tokens that a group must save before it reads its first slots together
MAX_KEPT_MASK = 1 << 20  # numbers of a mask that is kept for all layers; larger ones are made anew in each


@dataclass(frozen=True)
class AttentionRow:
    """What one sequence reads, up to its last new token: slots, positions, and which tokens no sliding window leaves behind [N]. The last `count` are new."""

    slots: np.ndarray
    positions: np.ndarray
    pinned: np.ndarray
    count: int

    def split(self) -> list[AttentionRow]:
        """Rows of at most MAX_QUERIES new tokens."""
        if self.count <= MAX_QUERIES:
            return [self]
        before = len(self.slots) - self.count
        ends = [*range(before + MAX_QUERIES, len(self.slots), MAX_QUERIES), len(self.slots)]
        begins = [before, *ends[:-1]]
        return [
            AttentionRow(self.slots[:end], self.positions[:end], self.pinned[:end], end - begin)
            for begin, end in zip(begins, ends, strict=True)
        ]

    def seen_through(self, window: int | None) -> np.ndarray:
        """Indices of the tokens that any of the new ones sees."""
        first = self.positions[-self.count]
        if window is None or self.positions[-1] - self.positions.min() < window:
            return np.arange(len(self.slots))
        return np.flatnonzero((first - self.positions < window) | self.pinned)


@final
class RowView:
    """What a batch of rows sees through one window: `slots` [B, N] padded at the end, and the mask of its T queries [B, T, N]."""

    def __init__(self, rows: Sequence[AttentionRow], window: int | None, device: torch.device, shared: Sequence[SharedSlots] = ()) -> None:
        skipped = {row: len(group.slots) for group in shared for row in group.rows}
        seen = [row.seen_through(window)[skipped.get(index, 0) :] for index, row in enumerate(rows)]
        width = max(map(len, seen))
        self.rows, self.window, self._seen, self._device, self.shared = rows, window, seen, device, shared
        slots = np.full((len(rows), width), NULL_SLOT)
        for target, row, index in zip(slots, rows, seen, strict=True):
            target[: len(index)] = row.slots[index]
        self.slots = torch.from_numpy(slots).to(device)
        self._kept: dict[torch.dtype, Tensor] = {}

    @property
    def length(self) -> int:
        """T: the most new tokens of a row; rows with fewer repeat their first."""
        return max(row.count for row in self.rows)

    def visible(self) -> Bool[Tensor, "B T N"]:
        """Which tokens each query sees: those before it and itself, within the window."""
        found = np.zeros((len(self.rows), self.length, self.slots.shape[1]), bool)
        for target, row, index in zip(found, self.rows, self._seen, strict=True):
            query = len(row.slots) - row.count + _repeated(row.count, self.length)
            near = index[None, :] <= query[:, None]
            if self.window is not None:
                distance = row.positions[query][:, None] - row.positions[index][None, :]
                near &= (distance < self.window) | row.pinned[index][None, :]
            target[:, : len(index)] = near
        return torch.from_numpy(found)

    def mask(self, dtype: torch.dtype) -> Float[Tensor, "B T N"]:
        """`visible` as numbers to add to scores."""
        if dtype in self._kept:
            return self._kept[dtype]
        visible = self.visible().to(self._device)
        made = torch.zeros(visible.shape, dtype=dtype, device=self._device).masked_fill_(~visible, -torch.inf)
        if made.numel() <= MAX_KEPT_MASK:
            self._kept[dtype] = made
        return made


@dataclass(frozen=True, eq=False)
class SharedSlots:
    """The first slots [N] of several rows of a batch, which they read together; `index` [R] are the rows as a tensor."""

    rows: tuple[int, ...]
    slots: Int[Tensor, " N"]
    index: Int[Tensor, " R"]


@final
class RowBatch:
    """Rows that attend in one call: `queries` [B, T] are the indices of their new tokens in the step, `own` [M] the places of real ones in B·T."""

    def __init__(self, rows: Sequence[AttentionRow], begins: Sequence[int], device: torch.device) -> None:
        self.rows, self._device = rows, device
        self.length = max(row.count for row in rows)
        index = np.stack([begin + _repeated(row.count, self.length) for row, begin in zip(rows, begins, strict=True)])
        own = np.concatenate([b * self.length + self.length - row.count + np.arange(row.count) for b, row in enumerate(rows)])
        self.queries, self.own = torch.from_numpy(index).to(device), torch.from_numpy(own).to(device)
        self.targets = torch.from_numpy(np.concatenate([begin + np.arange(row.count) for row, begin in zip(rows, begins, strict=True)])).to(
            device
        )
        self._views: dict[tuple[int | None, bool], RowView] = {}

    def view(self, window: int | None, *, merging: bool) -> RowView:
        """What the rows see through a window; with `merging`, slots that many of them read first are left to `shared`."""
        if window is not None and all(row.positions[-1] - row.positions.min() < window for row in self.rows):
            window = None
        key = (window, merging)
        if key not in self._views:
            self._views[key] = RowView(self.rows, window, self._device, self._shared if merging and window is None else ())
        return self._views[key]

    @cached_property
    def _shared(self) -> list[SharedSlots]:
        """Groups of rows with the same first slots, where reading these together saves enough."""
        if self.length > 1 and len(self.rows) == 1:
            return []
        by_first: dict[int, list[int]] = {}
        for index, row in enumerate(self.rows):
            by_first.setdefault(int(row.slots[0]), []).append(index)
        found = []
        for members in by_first.values():
            if len(members) < 2:
                continue
            common = min(len(self.rows[row].slots) - self.rows[row].count for row in members)
            table = np.stack([self.rows[row].slots[:common] for row in members])
            differ = np.flatnonzero((table != table[0]).any(0))
            common = int(differ[0]) if len(differ) else common
            if common * (len(members) - 1) >= MIN_SHARED:
                slots = torch.from_numpy(table[0, :common].copy()).to(self._device)
                found.append(SharedSlots(tuple(members), slots, torch.tensor(members, device=self._device)))
        return found


@final
class PagedAttention:
    """The hook and backend of one step of serving: `rows` are those of its new tokens, in their order in the line.

    `slots` [N] are where the new tokens are stored. Every layer stores them before any row reads, so a row may read what another stores in the same step.
    """

    def __init__(self, modules: Mapping[nn.Module, int], shape: ModelShape, cache: PagedKVCache, rows: Sequence[AttentionRow]) -> None:
        self._modules, self._shape, self._cache = modules, shape, cache
        self._slots = torch.from_numpy(np.concatenate([row.slots[-row.count :] for row in rows])).to(cache.device)
        self._batches = _batches(rows, cache.device)
        self._num_queries = sum(row.count for row in rows)

    def attention(
        self,
        module: nn.Module,
        query: Float[Tensor, "1 A N D"],
        key: Float[Tensor, "1 K N D"],
        value: Float[Tensor, "1 K N D"],
        scaling: float | None,
        attend: Attend | None,
    ) -> Float[Tensor, "1 N A D"]:
        """Store the new tokens' keys and values, then attend to everything each of them may see.

        `attend` is the family's own attention (query, key, value, mask), where plain SDPA is not.
        """
        layer = self._modules[module]
        self._cache.write(layer, self._slots, key[0].transpose(0, 1), value[0].transpose(0, 1))
        scale = query.shape[3] ** -0.5 if scaling is None else scaling
        if len(self._batches) == 1 and self._batches[0].length == 1:  # decoding: the line is the batch
            return self._batch(self._batches[0], layer, query[0].transpose(0, 1)[:, :, None], scale, attend).transpose(0, 1)
        output = query.new_empty(self._num_queries, query.shape[1], value.shape[3])
        line = query[0].transpose(0, 1)  # [N, A, D]
        for batch in self._batches:
            found = self._batch(batch, layer, line[batch.queries].transpose(1, 2), scale, attend)  # [B, T, A, D]
            output[batch.targets] = found.flatten(0, 1)[batch.own]
        return output[None]

    def _batch(
        self, batch: RowBatch, layer: int, query: Float[Tensor, "B A T D"], scaling: float, attend: Attend | None
    ) -> Float[Tensor, "B T A D"]:
        view = batch.view(self._shape.kv[layer].window, merging=attend is None)
        if attend is not None:
            keys, values = self._cache.gather(layer, view.slots)
            return attend(query, keys, values, view.mask(query.dtype)[:, None])
        rows, heads, length, dim = query.shape
        kv_heads = self._shape.kv[layer].heads
        each = heads // kv_heads
        if rows == 1 and length > 1:  # the query heads of a key head as rows, whose keys and mask are views
            packed, parts = query.view(kv_heads, each, length, dim).transpose(0, 1), each
            mask = view.mask(query.dtype)[:, None].expand(each, -1, -1, -1)
        else:  # the query heads of a key head as more queries
            packed, parts = query.reshape(rows, kv_heads, each * length, dim), 1
            mask = view.mask(query.dtype)[:, None].expand(-1, each, -1, -1).reshape(rows, 1, each * length, -1)
        own = self._attend(layer, view.slots, packed, mask, scaling, parts, lse=bool(view.shared))
        if isinstance(own, tuple):
            own = self._merged(view.shared, layer, packed, own, scaling)
        if parts > 1:
            return own.transpose(0, 1).reshape(1, heads, length, dim).transpose(1, 2)
        return own.reshape(rows, heads, length, dim).transpose(1, 2)

    def _attend(
        self, layer: int, slots: Tensor, query: Tensor, mask: Tensor, scaling: float, parts: int, *, lse: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        keys, values = self._cache.gather(layer, slots)
        if parts > 1:
            keys, values = keys.expand(parts, -1, -1, -1), values.expand(parts, -1, -1, -1)
        if lse:
            return attention_with_lse(query, keys, values, mask, scaling)
        return nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)

    def _merged(
        self, groups: Sequence[SharedSlots], layer: int, query: Tensor, own: tuple[Tensor, Tensor], scaling: float
    ) -> Float[Tensor, "B K R D"]:
        """Add what groups of rows read together, all queries of a group in one product."""
        output, lse = own
        output = output.contiguous()
        for group in groups:
            keys, values = self._cache.gather(layer, group.slots[None])
            taken = query[group.index]  # [R, K, Q, D]
            members, kv_heads, queries, dim = taken.shape
            joined = taken.transpose(0, 1).reshape(1, kv_heads, members * queries, dim)
            found, weight = attention_with_lse(joined, keys, values, None, scaling)
            found = found.reshape(kv_heads, members, queries, dim).transpose(0, 1)
            weight = weight.reshape(kv_heads, members, queries).transpose(0, 1)
            output[group.index] = merge((output[group.index], lse[group.index]), (found, weight))
        return output


def _repeated(count: int, length: int) -> np.ndarray:
    """Indices of `count` queries as `length`: the first is repeated in front."""
    return np.maximum(np.arange(length) - (length - count), 0)


def _batches(rows: Sequence[AttentionRow], device: torch.device) -> list[RowBatch]:
    """Rows by their number of queries: one each, a few each, and every longer one alone."""
    kinds: dict[int, tuple[list[AttentionRow], list[int]]] = {}
    begin = 0
    for row in rows:
        for part in row.split():
            kind = 0 if part.count == 1 else 1 if part.count <= SHORT else 2 + begin
            of_kind = kinds.setdefault(kind, ([], []))
            of_kind[0].append(part)
            of_kind[1].append(begin)
            begin += part.count
    return [RowBatch(of_kind, begins, device) for of_kind, begins in kinds.values()]
