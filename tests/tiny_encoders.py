"""Tiny random encoders, one or more for each supported family, with tokenizers of their own style."""

from __future__ import annotations

from functools import cache
from typing import Any

import tiny_tokenizers
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import wrap

POSITIONS = 48  # tokens that a text may have
WINDOW = 8  # of ModernBERT: tokens in all, half of them on each side

_QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_BASE = {
    **_QUIET,
    "vocab_size": tiny_tokenizers.SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,
}
_BERT = {**_BASE, "pad_token_id": 0, "type_vocab_size": 2}
_NARROW = {"embedding_size": 16}
# RoBERTa's pad is 1, and its first position is the one behind it.
_ROBERTA = {
    **_BASE,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "type_vocab_size": 1,
    "max_position_embeddings": POSITIONS + 2,
}
_DISTILBERT = {
    "vocab_size": tiny_tokenizers.SIZE,
    "dim": 32,
    "hidden_dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": POSITIONS,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "initializer_range": 0.2,
}
_MODERNBERT = {
    "vocab_size": tiny_tokenizers.SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,
    "num_hidden_layers": 4,
    "local_attention": WINDOW,
    "global_attn_every_n_layers": 3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
_DEBERTA = {
    **_BASE,
    "pad_token_id": 0,
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
_DEBERTA_V3 = {"share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}

# Name -> model type, config and tokenizer. The name is the family's, except where a family has a second model.
TINY: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("bert", _BERT, "bert"),
    "roberta": ("roberta", _ROBERTA, "roberta"),
    "xlm-roberta": ("xlm-roberta", _ROBERTA, "xlm_roberta"),
    "electra": ("electra", {**_BERT, **_NARROW}, "bert"),
    "distilbert": ("distilbert", {**_DISTILBERT, "pad_token_id": 0}, "bert"),
    "albert": ("albert", {**_BERT, **_NARROW, "num_hidden_layers": 3}, "bert"),
    "albert-groups": ("albert", {**_BERT, **_NARROW, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2}, "bert"),
    "mpnet": ("mpnet", {**_ROBERTA, "relative_attention_num_buckets": 32}, "roberta"),
    "deberta-v2": ("deberta-v2", {**_DEBERTA, **_NARROW, "conv_kernel_size": 3, "conv_act": "gelu", "type_vocab_size": 2}, "bert"),
    "deberta-v3": ("deberta-v2", {**_DEBERTA, **_DEBERTA_V3}, "bert"),
    "modernbert": ("modernbert", _MODERNBERT, "bert"),
}


def config(name: str, **changes: Any) -> PreTrainedConfig:
    """The config of a tiny encoder."""
    model_type, settings, _ = TINY[name]
    return AutoConfig.for_model(model_type, **{**settings, **changes})


def network(name: str, **changes: Any) -> PreTrainedModel:
    """A fresh random encoder in fp32. Norms and biases are random too, so that none of them can be forgotten unnoticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModel.from_config(config(name, **changes)).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    return getattr(tiny_tokenizers, TINY[name][2])()


def build(name: str, **changes: Any) -> FrozenModel:
    """A frozen tiny encoder of one's own, for tests that change it."""
    return wrap(network(name, **changes), tokenizer(name), name=f"tiny-{name}")


@cache
def frozen(name: str) -> FrozenModel:
    """A shared frozen tiny encoder: read it, never change it."""
    return build(name)
