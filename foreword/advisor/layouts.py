"""How the layers of each model type are made, as a table: what a config alone does not say. A new family is one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Config = Mapping[str, Any]


def _nothing(config: Config) -> int:
    return 0


@dataclass(frozen=True)
class Layout:
    """One model type. Norms are counted by how many have the hidden width; `norm` is 2 where they have a bias.

    `biased` names the matrices that always have one; others follow the config's `attention_bias` and `mlp_bias`. `positions` is the number of rows
    that a table of learned positions has beyond the config's, None where there is no table; `types` says whether there is one of token types. `extra` counts what no other row has.
    """

    gated: bool = True
    fused: tuple[str, ...] = ()
    biased: tuple[str, ...] = ()
    layer_norms: int = 2
    end_norms: int = 1
    embedding_norms: int = 0
    norm: int = 1
    query_norms: Literal["", "head", "width"] = ""
    positions: int | None = None
    types: bool = False
    pooler: bool = False
    tied: bool = False
    extra: Callable[[Config], int] = _nothing


_ALL = ("q", "k", "v", "qkv", "o", "up", "down")


def _relative(config: Config) -> int:
    """MPNet's table of relative positions, one number a head."""
    return int(config.get("relative_attention_num_buckets", 32)) * int(config["num_attention_heads"])


def _disentangled(config: Config) -> int:
    """DeBERTa's table of relative positions, its norm, and the convolution of the largest; its first norm stands behind the projection."""
    hidden, kernel = int(config["hidden_size"]), int(config.get("conv_kernel_size") or 0)
    embedding = int(config.get("embedding_size") or hidden)
    reach = int(config.get("position_buckets") or 0)
    if reach < 1:
        reach = int(config.get("max_relative_positions") or 0)
    reach = reach if reach > 0 else int(config["max_position_embeddings"])
    table = 2 * reach * hidden if config.get("relative_attention") else 0
    norm = 2 * hidden if table and "layer_norm" in str(config.get("norm_rel_ebd", "none")) else 0
    convolution = hidden * hidden * kernel + 3 * hidden if kernel else 0
    places = 0 if config.get("position_biased_input", True) else int(config["max_position_embeddings"]) * embedding
    return table + norm + convolution - places + 2 * (hidden - embedding)


def _first_norm(config: Config) -> int:
    """ModernBERT's first layer has no norm before its attention."""
    return -int(config["hidden_size"])


def _sinks(config: Config) -> int:
    """GPT-OSS: one number a head and layer that attention may rest on, and biases of router and experts."""
    experts, hidden, inner = int(config["num_local_experts"]), int(config["hidden_size"]), int(config["intermediate_size"])
    return int(config["num_hidden_layers"]) * (int(config["num_attention_heads"]) + experts * (1 + 2 * inner + hidden))


def _latent(config: Config) -> int:
    """DeepSeek: the norms of its narrow layers."""
    return int(config["num_hidden_layers"]) * (int(config["kv_lora_rank"]) + int(config.get("q_lora_rank") or 0))


_GPT = Layout(gated=False, fused=("qkv",), biased=_ALL, norm=2, positions=0, tied=True)
_BERT = Layout(gated=False, biased=_ALL, end_norms=0, embedding_norms=1, norm=2, positions=0, types=True, pooler=True)
_GEMMA = Layout(layer_norms=4, tied=True)
LLAMA = Layout()

LAYOUTS: dict[str, Layout] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": Layout(biased=("q", "k", "v")),
    "qwen3": Layout(query_norms="head"),
    "qwen3_moe": Layout(query_norms="head"),
    "gemma2": _GEMMA,
    "gemma3_text": Layout(layer_norms=4, query_norms="head", tied=True),
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neox": Layout(gated=False, fused=("qkv",), biased=_ALL, norm=2),
    "opt": Layout(gated=False, biased=_ALL, norm=2, positions=2, tied=True),
    "phi3": Layout(fused=("qkv", "gate_up")),
    "olmo2": Layout(query_norms="width"),
    "granite": LLAMA,
    "smollm3": Layout(tied=True),
    "gpt_oss": Layout(biased=("q", "k", "v", "o"), extra=_sinks),
    "deepseek_v3": Layout(extra=_latent),
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": Layout(gated=False, biased=_ALL, end_norms=0, embedding_norms=1, norm=2, positions=0, types=True),
    "distilbert": Layout(gated=False, biased=_ALL, end_norms=0, embedding_norms=1, norm=2, positions=0),
    "albert": _BERT,
    "mpnet": Layout(gated=False, biased=_ALL, end_norms=0, embedding_norms=1, norm=2, positions=0, pooler=True, extra=_relative),
    "deberta-v2": Layout(gated=False, biased=_ALL, end_norms=0, embedding_norms=1, norm=2, positions=0, types=True, extra=_disentangled),
    "modernbert": Layout(fused=("qkv", "gate_up"), embedding_norms=1, extra=_first_norm),
    "t5": Layout(gated=False, tied=True),
    "mt5": Layout(gated=False, tied=False),
    "bart": Layout(gated=False, biased=_ALL, end_norms=0, embedding_norms=1, norm=2, positions=2, tied=True),
    "mbart": Layout(gated=False, biased=_ALL, end_norms=1, embedding_norms=1, norm=2, positions=2, tied=True),
    "marian": Layout(gated=False, biased=_ALL, end_norms=0, norm=2, positions=0, tied=True),
    "pegasus": Layout(gated=False, biased=_ALL, end_norms=1, norm=2, positions=0, tied=True),
}
