"""DeBERTa-v2's attention, which is outside transformers' attention interface: a prefix has no position, so its keys have no position bias."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from foreword.backbone.attention import attention_context
from foreword.backbone.attention.observed_pass import ObservedPass
from foreword.backbone.family_overrides.model_overrides import ModelOverrides


class PrefixedDebertaAttention(DisentangledSelfAttention):
    """The same attention, its keys, values and mask as the hook leaves them; without a hook it is the original."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        hook = attention_context.current_hook()
        if hook is None:
            return super().forward(hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings)
        rows, heads = len(hidden_states), self.num_attention_heads
        states = hidden_states if query_states is None else query_states
        query = self.transpose_for_scores(self.query_proj(states), heads)  # [B·A, T, D], as the bias is computed
        own_key, own_value = (self.transpose_for_scores(layer(hidden_states), heads) for layer in (self.key_proj, self.value_proj))
        parts = 1 + len({"c2p", "p2c"} & set(self.pos_att_type))
        bias: Any = None
        if self.relative_attention:
            bias = self.disentangled_attention_bias(query, own_key, relative_pos, self.pos_dropout(rel_embeddings), parts)
        key, value, mask = hook.extend(self, _by_head(own_key, rows), _by_head(own_value, rows), attention_mask.bool())
        scores = torch.matmul(_by_head(query, rows), key.transpose(2, 3) / math.sqrt(query.shape[-1] * parts))
        if isinstance(bias, Tensor):
            scores = scores + nn.functional.pad(_by_head(bias, rows), (key.shape[2] - own_key.shape[1], 0))
        weights = self.dropout(scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1))
        mixed = torch.matmul(weights, value).transpose(1, 2)
        if isinstance(hook, ObservedPass):
            hook.observe(self, _by_head(query, rows), key, value, mixed, lambda: weights)
        return mixed.flatten(2), weights if output_attentions else None


def _by_head(side: Any, rows: int) -> Tensor:
    return side.view(rows, -1, *side.shape[1:])


OVERRIDES = ModelOverrides({DisentangledSelfAttention: PrefixedDebertaAttention}, own_attention=True)
