"""The observers of one forward pass, together with its prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from foreword.backbone.attention.attention_observer import AttentionCall, AttentionObserver
from foreword.backbone.attention.kv_prefix import PrefixAttachment
from foreword.backbone.attention.pass_layout import PassLayout
from foreword.shape import ModelShape


@final
@dataclass
class ObservedPass:
    """The hook of an observed pass: keys and values are the prefix's and the text's, without the virtual tokens that an observer masks."""

    slots: Mapping[nn.Module, int]
    shape: ModelShape
    layout: PassLayout
    prefix: PrefixAttachment | None
    observers: Sequence[AttentionObserver]
    over: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        lengths = [side.shape[1] for side in self.layout.embeddings.values()]
        lengths += [] if self.prefix is None else [side.shape[1] for side in self.prefix.mask.values()]
        for observer in self.observers:
            observer.begin(max(lengths), len(self.shape.kv))

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prefix one attention's keys, values and mask, and mask virtual tokens."""
        if self.prefix is not None:
            key, value, mask = self.prefix.extend(module, key, value, mask)
        slot = self.slots[module]
        masked = sorted({index for observer in self.observers for index in observer.masked(slot)})
        if not masked:
            return key, value, mask
        columns = self._virtual(slot)
        columns = columns[:, [index for index in masked if index < columns.shape[1]]].to(key.device)
        off = torch.zeros(len(columns), key.shape[2] + 1, dtype=torch.bool, device=key.device)  # the last column is for absent tokens
        off = off.scatter(1, columns.where(columns >= 0, key.shape[2]), True)[:, None, None, :-1].to(mask.device)
        return key, value, mask.masked_fill(off, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)

    def observe(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, output: Tensor, compute_weights: Callable[[], Tensor]
    ) -> None:
        """Show an attention that has run to all observers."""
        if self.over:
            return
        slot = self.slots[module]
        part = self.shape.kv[slot].part
        seen = [side.detach() for side in (query, key, value, output)]
        tokens, virtual = self.layout.tokens[part].to(query.device), self._virtual(slot).to(query.device)
        call = AttentionCall(slot, part, *seen, tokens=tokens, virtual=virtual, compute_weights=compute_weights)
        for observer in self.observers:
            observer.observe(call)

    def finish(self) -> None:
        """The pass is over: layers that gradient checkpointing recomputes later are masked alike, but not observed again."""
        self.over = True

    def _virtual(self, slot: int) -> Int[Tensor, "B P"]:
        """The key column of each virtual token in this attention; those of a row are all embeddings, or all from a prefix."""
        soft = self.layout.embeddings[self.shape.kv[slot].part]
        if self.prefix is None or slot not in self.prefix.keys:
            return soft
        real = self.prefix.mask[slot].to(soft.device).expand(len(soft), -1)
        columns = torch.arange(real.shape[1], device=soft.device).where(real, -1)
        soft = (soft + real.shape[1]).where(soft >= 0, -1)
        width = max(columns.shape[1], soft.shape[1])
        columns, soft = (nn.functional.pad(side, (0, width - side.shape[1]), value=-1) for side in (columns, soft))
        return torch.maximum(columns, soft)
