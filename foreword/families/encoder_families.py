"""Encoders, one record each: tokens see both sides, and tasks answer through a head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from foreword.families.base import Family
from foreword.families.weight_layout import ALL_BIASED, Layout, disentangled_positions, no_first_norm, relative_positions

_PLAIN = Layout(gated=False, biased=ALL_BIASED, end_norms=0, embedding_norms=1, norm=2, positions=0)
_BERT = Family("BERT", kind="encoder", lora_targets=("query", "value"), layout=replace(_PLAIN, types=True, pooler=True))


def _shared_groups(config: Mapping[str, Any]) -> int:
    """ALBERT's layers share the weights of their group."""
    return int(config.get("num_hidden_groups") or 1) * int(config.get("inner_group_num") or 1)


ENCODER_FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": replace(_BERT, title="RoBERTa", after_pad=True),
    "xlm-roberta": replace(_BERT, title="XLM-R", after_pad=True),
    "electra": replace(_BERT, title="ELECTRA", layout=replace(_PLAIN, types=True)),
    "distilbert": Family("DistilBERT", kind="encoder", lora_targets=("q_lin", "v_lin"), layout=_PLAIN),
    "albert": replace(
        _BERT, title="ALBERT", num_attentions=_shared_groups, overrides="foreword.backbone.family_overrides.albert:OVERRIDES"
    ),
    "mpnet": Family(
        "MPNet",
        kind="encoder",
        after_pad=True,
        lora_targets=("attn.q", "attn.v"),
        layout=replace(_PLAIN, pooler=True, extra=relative_positions),
        overrides="foreword.backbone.family_overrides.mpnet:OVERRIDES",
    ),
    "deberta-v2": Family(
        "DeBERTa-v2 and v3",
        kind="encoder",
        lora_targets=("query_proj", "value_proj"),
        layout=replace(_PLAIN, types=True, projection_bias=False, extra=disentangled_positions),
        overrides="foreword.backbone.family_overrides.deberta_v2:OVERRIDES",
    ),
    "modernbert": Family(
        "ModernBERT",
        kind="encoder",
        lora_targets=("Wqkv",),
        layout=Layout(fused=("qkv", "gate_up"), embedding_norms=1, extra=no_first_norm),
    ),
}
