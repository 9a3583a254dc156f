"""The model runner: runs the network for one step, prefill of new sequences or one token of each running one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.backbone.attention.cascade_attention import CascadeAttention, SharedContext
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.kv_cache import SequenceKVCache, SharedKVPool
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix
from foreword.serving.slot_table import SlotTable


@final
class ModelRunner:
    """Running sequences have rows 0 … B-1 of `kv_cache` and read `kv_pool` by their slot tables; the caller keeps these and the lengths."""

    def __init__(self, model: FrozenModel, *, max_sequences: int = 64, length: int = 0) -> None:
        self.model = model
        self.kv_pool = SharedKVPool(model.shape, model.dtype, model.device)
        self.kv_cache = SequenceKVCache(model.shape, max_sequences, length, model.dtype, model.device)
        self.last = torch.tensor([-1], device=model.device)  # an index, never the int 1: a slice would copy the output matrix

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[Row], soft: Sequence[EmbeddingPrefix | None], shared: Sequence[SlotTable], first: int
    ) -> tuple[Float[Tensor, "B V"], list[int], list[int]]:
        """Read new sequences into KV rows from `first` on: the logits after each, its number of tokens, and the position of its first.

        `prompts` hold the rows after the shared tokens; soft tokens among them are merged here.
        """
        batch = collate(prompts, pad=self.model.tokenizer.pad)
        ready = self.model.prepare(batch, list(soft))
        counts = ready.mask.sum(1)
        self.reserve(int(counts.max()) + 1)
        offset = torch.tensor([table.end for table in shared], device=self.model.device)
        positions = ready.inputs["position_ids"] + offset[:, None]
        step = self._step(self.context(shared), torch.zeros_like(counts), counts, positions, offset, first)
        inputs: dict[str, Any] = {**ready.inputs, "position_ids": positions}
        logits = self.model.network(**inputs, foreword=step, use_cache=False, logits_to_keep=self.last).logits[:, -1]
        return logits, counts.tolist(), offset.tolist()

    @torch.inference_mode()
    def decode(
        self, tokens: Int[Tensor, " B"], context: SharedContext | None, starts: Int[Tensor, " B"], offset: Int[Tensor, " B"]
    ) -> Float[Tensor, "B V"]:
        """Read one more token of each sequence: the logits after it."""
        positions = (starts + offset)[:, None]
        step = self._step(context, starts, torch.ones_like(starts), positions, offset, 0)
        mask = torch.ones_like(positions)
        inputs = {"input_ids": tokens[:, None], "attention_mask": mask, "position_ids": positions}
        return self.model.network(**inputs, foreword=step, use_cache=False, logits_to_keep=self.last).logits[:, -1]

    def context(self, shared: Sequence[SlotTable]) -> SharedContext | None:
        """The slots of the pool that sequences read, as tensors; sequences with equal tables form a group. None if no sequence reads any."""
        if not any(table.slots for table in shared):
            return None
        tables = list(dict.fromkeys(shared))
        width = max(len(table.slots) for table in tables)
        device = self.model.device

        def padded(values: Iterable[tuple[int, ...]]) -> Tensor:
            return torch.tensor([[*each, *[0] * (width - len(each))] for each in values], device=device)

        real = torch.tensor([[i < len(table.slots) for i in range(width)] for table in tables], device=device)
        group = torch.tensor([tables.index(table) for table in shared], device=device)
        slots, positions = padded(table.slots for table in tables), padded(table.positions for table in tables)
        return SharedContext(slots, positions, real, padded(table.pinned for table in tables).bool(), group)

    def reserve(self, length: int) -> None:
        """Make KV rows long enough for sequences of so many tokens."""
        if length > self.kv_cache.length:
            self.kv_cache.grow(max(length, 2 * self.kv_cache.length, 64))

    def _step(
        self,
        context: SharedContext | None,
        starts: Int[Tensor, " B"],
        counts: Int[Tensor, " B"],
        positions: Int[Tensor, "B T"],
        offset: Int[Tensor, " B"],
        first: int,
    ) -> CascadeAttention:
        model = self.model
        return CascadeAttention(model.slots, model.shape, self.kv_pool, self.kv_cache, context, starts, counts, positions, offset, first)
