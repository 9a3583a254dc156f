"""KV prefixes enter through transformers' attention interface, as a keyword argument of one forward pass.

No state is kept anywhere: gradient checkpointing replays the same keyword, threads cannot meet, and a forward without it is the base model.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from foreword.backbone import packed

SDPA, EAGER = "foreword", "foreword_eager"


@dataclass(frozen=True)
class Attachment:
    """What one forward pass adds before every layer's keys: R is 1 (shared by all rows) or B.

    `keys` and `values` hold [R, K, P, D] by layer, `mask` [R, P] by layer marks real virtual tokens (rows differ in length and in layers);
    rows of `fading` [R] lose them beyond a sliding window, counted from the queries' `positions` [B, T]; `windows` is each layer's window.
    """

    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    mask: dict[int, Bool[Tensor, "R P"]]
    fading: Bool[Tensor, " R"]
    positions: Int[Tensor, "B T"]
    windows: tuple[int | None, ...]

    def extend(self, layer: int, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prefix one layer's keys, values and mask."""
        if layer not in self.keys:
            return key, value, mask
        rows = len(key)
        prefix = [side[layer].to(key.device).expand(rows, -1, -1, -1) for side in (self.keys, self.values)]
        seen = self._visible(layer).to(mask.device).expand(rows, 1, mask.shape[2], -1)
        if mask.dtype != torch.bool:
            seen = torch.zeros_like(seen, dtype=mask.dtype).masked_fill(~seen, torch.finfo(mask.dtype).min)
        mask = mask.expand(rows, -1, -1, -1)
        return torch.cat([prefix[0], key], 2), torch.cat([prefix[1], value], 2), torch.cat([seen, mask], 3)

    def _visible(self, layer: int) -> Bool[Tensor, "R 1 T P"]:
        seen, window = self.mask[layer][:, None, None, :], self.windows[layer]
        if window is None or not bool(self.fading.any()):
            return seen
        slots = torch.arange(seen.shape[3], device=self.positions.device)
        near = self.positions[:, None, :, None] - slots < window
        return seen & (near | ~self.fading[:, None, None, None])


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    foreword: Attachment | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The registered attention function: the family's own attention over [prefix | keys]."""
    if foreword is not None:
        key, value, attention_mask = foreword.extend(module.layer_idx, key, value, attention_mask)  # type: ignore[arg-type]
    if module.config._attn_implementation == EAGER:  # type: ignore[union-attr]
        return sys.modules[type(module).__module__].eager_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if packed.suits(query, key):
        return packed.attention(query, key, value, attention_mask, kwargs.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _sdpa_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask, never skipped: a skipped one would let causality be read off the wrong corner once a prefix stands before the keys."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


def _eager_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return eager_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


for _name, _mask in ((SDPA, _sdpa_mask), (EAGER, _eager_mask)):
    AttentionInterface.register(_name, attend)
    AttentionMaskInterface.register(_name, _mask)


def install(network: PreTrainedModel) -> None:
    """Switch a model to the registered attention: over SDPA where the family has it and caps no scores, else over its eager one."""
    capped = getattr(network.config, "attn_logit_softcapping", None) is not None
    network.set_attn_implementation(SDPA if network._supports_sdpa and not capped else EAGER)
