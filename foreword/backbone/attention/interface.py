"""KV prefixes enter through transformers' attention interface, as a keyword argument of one forward pass.

No state is kept anywhere: gradient checkpointing replays the same keyword, threads cannot meet, and a forward without it is the base model.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from foreword.backbone.attention import cpu_attention
from foreword.errors import ModelError
from foreword.shape import ModelShape

SDPA, EAGER = "foreword", "foreword_eager"


@runtime_checkable
class AttentionHook(Protocol):
    """What travels through a forward pass as the keyword `foreword` and meets every attention."""

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask as this attention is to see them."""
        ...


@runtime_checkable
class AttentionBackend(Protocol):
    """Travels in a visitor's place and takes plain attention over."""

    def attention(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """softmax(q·kᵀ·scaling)·v over everything this attention is to see, [B, T, A, D]."""
        ...


@dataclass(frozen=True)
class Recorder:
    """Notes the keys and values [B, K, N, D] that every attention sees, in the order of the calls, and changes nothing."""

    seen: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.seen.setdefault(module, (key, value))
        return key, value, mask


@dataclass(frozen=True)
class Attachment:
    """What one forward pass adds before every attention's keys: R is 1 (shared by all rows) or B.

    `slots` numbers the attention modules as `ModelShape.kv` does. `keys` and `values` hold [R, K, P, D] by slot, `mask` [R, P] by slot marks
    real virtual tokens (rows differ in length and in layers); rows of `fading` [R] lose them beyond a sliding window, counted from the
    queries' `positions` [B, T]; `windows` is each slot's window.
    """

    slots: Mapping[nn.Module, int]
    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    mask: dict[int, Bool[Tensor, "R P"]]
    fading: Bool[Tensor, " R"]
    positions: Int[Tensor, "B T"]
    windows: tuple[int | None, ...]

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prefix one attention's keys, values and mask."""
        layer = self.slots[module]
        if layer not in self.keys:
            return key, value, mask
        rows = len(key)
        prefix = [side[layer].to(key.device).expand(rows, -1, -1, -1) for side in (self.keys, self.values)]
        seen = self._visible(layer).to(mask.device).expand(rows, 1, mask.shape[2], -1)
        if mask.dtype != torch.bool:
            seen = torch.zeros_like(seen, dtype=mask.dtype).masked_fill(~seen, torch.finfo(mask.dtype).min)
        mask = mask.expand(rows, -1, -1, -1)
        return torch.cat([prefix[0], key], 2), torch.cat([prefix[1], value], 2), torch.cat([seen, mask], 3)

    def repeated(self, beams: int) -> Attachment:
        """The attachment of a batch whose every row stands `beams` times in turn."""

        def rows(side: Tensor) -> Tensor:
            return side if len(side) == 1 else side.repeat_interleave(beams, 0)

        sides = {name: {layer: rows(side) for layer, side in getattr(self, name).items()} for name in ("keys", "values", "mask")}
        return replace(self, **sides, fading=rows(self.fading), positions=rows(self.positions))

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
    foreword: AttentionHook | AttentionBackend | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The registered attention function: the family's own attention over [prefix | keys]."""
    how = module.config._attn_implementation  # type: ignore[union-attr]  # torch types no attributes of modules
    if isinstance(foreword, AttentionBackend) and how == SDPA:
        return foreword.attention(module, query, key, value, kwargs.get("scaling")), None
    if foreword is not None:
        assert isinstance(foreword, AttentionHook), "what only takes attention over travels only where it can"
        key, value, attention_mask = foreword.extend(module, key, value, attention_mask)
        if (bias := kwargs.get("position_bias")) is not None:  # T5's: a prefix stands at no distance, so its keys have none
            kwargs["position_bias"] = nn.functional.pad(bias, (key.shape[2] - bias.shape[3], 0))
    if how == EAGER:
        return sys.modules[type(module).__module__].eager_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if cpu_attention.suits(query, key):
        return cpu_attention.attention(query, key, value, attention_mask, kwargs.get("scaling"), kwargs.get("position_bias")), None
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


@torch.no_grad()
def number(network: PreTrainedModel, shape: ModelShape) -> dict[nn.Module, int]:
    """Number the attention modules as `ModelShape.kv` does, by the order in which a forward pass meets them.

    Raises ModelError where it does not meet as many as the config promises.
    """
    recorder = Recorder()
    ids = torch.zeros(1, 2, dtype=torch.long, device=network.device)
    both = {"decoder_input_ids": ids, "use_cache": False} if shape.kind == "encoder-decoder" else {}
    network.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), foreword=recorder, **both)
    met = list(recorder.seen)
    first = [kv.part for kv in shape.kv].count("encoder")
    if first:  # a decoder's layer looks at itself, then across
        met = [*met[:first], *met[first::2], *met[first + 1 :: 2]]
    if len(met) != len(shape.kv):
        raise ModelError(
            f"a model of type '{shape.family}' has {len(met)} attentions that take a prefix, but its config promises {len(shape.kv)}; "
            "load it with transformers' own class, without remote code."
        )
    return {module: index for index, module in enumerate(met)}
