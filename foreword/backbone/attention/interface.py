"""Foreword's attention, registered with transformers' attention interface: a hook is a keyword argument of one forward pass.

There is no global state: gradient checkpointing repeats the same keyword, threads do not interfere, and a forward pass without it is the base model's.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from foreword.backbone.attention import cpu_attention
from foreword.backbone.attention.hooks import AttentionBackend, AttentionHook
from foreword.backbone.attention.observed_pass import ObservedPass

SDPA, EAGER = "foreword", "foreword_eager"


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
    if isinstance(foreword, AttentionBackend):

        def family_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
            return _plain(how, module, query, key, value, mask, kwargs)[0]

        return foreword.attention(module, query, key, value, kwargs.get("scaling"), None if how == SDPA else family_attention), None
    if foreword is not None:
        key, value, attention_mask = foreword.extend(module, key, value, attention_mask)
        if (bias := kwargs.get("position_bias")) is not None:  # T5's: a prefix has no distance, so its keys have no bias
            kwargs["position_bias"] = nn.functional.pad(bias, (key.shape[2] - bias.shape[3], 0))
    output, weights = _plain(how, module, query, key, value, attention_mask, kwargs)
    if isinstance(foreword, ObservedPass):
        scaling, bias = kwargs.get("scaling"), kwargs.get("position_bias")
        computed = partial(cpu_attention.attention_weights, query, key, attention_mask, scaling, bias)
        foreword.observe(module, query, key, value, output, computed if weights is None else lambda: weights)
    return output, weights


def _plain(
    how: Any, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """Attention over these keys and values; its weights too where the family's own eager function gives them."""
    if how == EAGER:
        return sys.modules[type(module).__module__].eager_attention_forward(module, query, key, value, mask, **kwargs)
    if cpu_attention.suits(query, key):
        return cpu_attention.attention(query, key, value, mask, kwargs.get("scaling"), kwargs.get("position_bias")), None
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


def _sdpa_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask, never skipped: with a prefix before the keys, is_causal would align the causal mask with the wrong corner."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


def _eager_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Eager attention's mask, which is added to the scores. Half of the lowest number, because the sum of both must not be -∞ in float16:
    softmax makes NaN of a row of them, and NaN at pads would reach every token.
    """
    mask = eager_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
    return None if mask is None else mask.clamp_min(torch.finfo(mask.dtype).min / 2)


for _name, _mask in ((SDPA, _sdpa_mask), (EAGER, _eager_mask)):
    AttentionInterface.register(_name, attend)
    AttentionMaskInterface.register(_name, _mask)


def install(network: PreTrainedModel) -> None:
    """Switch a model to the registered attention: over SDPA where the family has it and caps no scores, else over its eager one."""
    capped = getattr(network.config, "attn_logit_softcapping", None) is not None
    network.set_attn_implementation(SDPA if network._supports_sdpa and not capped else EAGER)
