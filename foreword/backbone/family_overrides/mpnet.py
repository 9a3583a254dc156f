"""MPNet's attention and layers, which are outside transformers' attention interface and its gradient checkpointing."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetSelfAttention

from foreword.backbone.attention import attention_context
from foreword.backbone.attention.observed_pass import ObservedPass
from foreword.backbone.family_overrides.model_overrides import ModelOverrides


class PrefixedMPNetAttention(MPNetSelfAttention):
    """The same attention, its keys, values and mask as the hook leaves them: a prefix has no position, so its keys have no position bias."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, Any] | tuple[Any]:
        hook = attention_context.current_hook()
        if hook is None:
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions=output_attentions, **kwargs)
        query, own_key, own_value = (self._by_head(layer(hidden_states)) for layer in (self.q, self.k, self.v))
        if attention_mask is None:
            attention_mask = query.new_zeros(len(query), 1, query.shape[2], query.shape[2])
        key, value, mask = hook.extend(self, own_key, own_value, attention_mask)
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.attention_head_size)
        if position_bias is not None:
            scores = scores + nn.functional.pad(position_bias, (key.shape[2] - own_key.shape[2], 0))
        weights = self.dropout((scores + mask).softmax(-1))
        mixed = torch.matmul(weights, value).transpose(1, 2)
        if isinstance(hook, ObservedPass):
            hook.observe(self, query, key, value, mixed, lambda: weights)
        context = self.o(mixed.flatten(2))
        return (context, weights) if output_attentions else (context,)

    def _by_head(self, side: Tensor) -> Tensor:
        return side.view(*side.shape[:2], -1, self.attention_head_size).transpose(1, 2)


class CheckpointedMPNetLayer(GradientCheckpointingLayer, MPNetLayer):
    """The same layer, as transformers checkpoints layers."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return super().forward(*args, **kwargs)


OVERRIDES = ModelOverrides({MPNetSelfAttention: PrefixedMPNetAttention, MPNetLayer: CheckpointedMPNetLayer}, own_attention=True)
