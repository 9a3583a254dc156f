"""Tensors of a serving engine: new sequences are read in one pass, then all sequences grow by one token a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.backbone.attention.cascade_attention import CascadeAttention, SharedContext
from foreword.backbone.batch import collate
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.kv_cache import SharedKVPool, Slots
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix


@dataclass(frozen=True)
class Stored:
    """Tokens of the arena that a sequence reads before its own, in order: their places and positions, and which no window leaves behind."""

    places: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    pinned: tuple[bool, ...] = ()

    @property
    def end(self) -> int:
        """The position after the last token."""
        return max(self.positions) + 1 if self.positions else 0

    def __add__(self, other: Stored) -> Stored:
        return Stored(self.places + other.places, self.positions + other.positions, self.pinned + other.pinned)


@final
class ModelRunner:
    """Sequences stand in slots 0 … B-1. `stored`, `starts` and `offset` describe them; the caller keeps what they mean."""

    def __init__(self, model: FrozenModel, *, max_sequences: int = 64, length: int = 0) -> None:
        self.model = model
        self.arena = SharedKVPool(model.shape, model.dtype, model.device)
        self.slots = Slots(model.shape, max_sequences, length, model.dtype, model.device)
        self.last = torch.tensor([-1], device=model.device)  # an index, never the int 1: a slice would copy the output matrix

    @torch.inference_mode()
    def prefill(
        self, rows: Sequence[Row], soft: Sequence[EmbeddingPrefix | None], stored: Sequence[Stored], first: int
    ) -> tuple[Float[Tensor, "B V"], list[int], list[int]]:
        """Read new sequences into slots from `first` on: the logits after each, its number of tokens, and the position of its first.

        `rows` hold what stands behind the stored tokens; soft tokens among them are merged here.
        """
        batch = collate(rows, pad=self.model.tokenizer.pad)
        ready = self.model.prepare(batch, list(soft))
        counts = ready.mask.sum(1)
        self.fit(int(counts.max()) + 1)
        offset = torch.tensor([each.end for each in stored], device=self.model.device)
        positions = ready.inputs["position_ids"] + offset[:, None]
        step = self._step(self.context(stored), torch.zeros_like(counts), counts, positions, offset, first)
        inputs: dict[str, Any] = {**ready.inputs, "position_ids": positions}
        logits = self.model.network(**inputs, foreword=step, use_cache=False, logits_to_keep=self.last).logits[:, -1]
        return logits, counts.tolist(), offset.tolist()

    @torch.inference_mode()
    def decode(
        self, tokens: Int[Tensor, " B"], context: SharedContext | None, starts: Int[Tensor, " B"], offset: Int[Tensor, " B"]
    ) -> Float[Tensor, "B V"]:
        """One more token of each sequence: the logits after it."""
        positions = (starts + offset)[:, None]
        step = self._step(context, starts, torch.ones_like(starts), positions, offset, 0)
        mask = torch.ones_like(positions)
        inputs = {"input_ids": tokens[:, None], "attention_mask": mask, "position_ids": positions}
        return self.model.network(**inputs, foreword=step, use_cache=False, logits_to_keep=self.last).logits[:, -1]

    def context(self, stored: Sequence[Stored]) -> SharedContext | None:
        """What rows read of the arena, as tensors; rows that read the same share it. None where nobody reads anything."""
        if not any(each.places for each in stored):
            return None
        lists = list(dict.fromkeys(stored))
        width = max(len(each.places) for each in lists)
        device = self.model.device

        def table(name: str) -> Tensor:
            return torch.tensor([[*getattr(each, name), *[0] * (width - len(each.places))] for each in lists], device=device)

        real = torch.tensor([[i < len(each.places) for i in range(width)] for each in lists], device=device)
        group = torch.tensor([lists.index(each) for each in stored], device=device)
        return SharedContext(table("places"), table("positions"), real, table("pinned").bool(), group)

    def fit(self, length: int) -> None:
        """Make places long enough for sequences of so many tokens."""
        if length > self.slots.length:
            self.slots.grow(max(length, 2 * self.slots.length, 64))

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
        return CascadeAttention(model.slots, model.shape, self.arena, self.slots, context, starts, counts, positions, offset, first)
