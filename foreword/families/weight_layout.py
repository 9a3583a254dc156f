"""The layers of a family: facts for counting all its weights that its config does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Config = Mapping[str, Any]


def _nothing(config: Config) -> int:
    return 0


@dataclass(frozen=True)
class Layout:
    """One family. Norms are counted by how many have the hidden width; `norm` is 2 where they have a bias.

    Args:
        biased: Matrices that always have a bias; others follow the config's `attention_bias` and `mlp_bias`.
        positions: Rows that a table of learned positions has beyond the config's; None where there is no table.
        types: Whether there is a table of token types.
        projection_bias: Of an encoder's layer between embedding and hidden width.
        end_norm_switch: The config's field that, set to false, leaves the last norm out.
        extra: Counts what no other family has.
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
    projection_bias: bool = True
    end_norm_switch: str = ""
    extra: Callable[[Config], int] = _nothing


ALL_BIASED = ("q", "k", "v", "qkv", "o", "up", "down")


def relative_positions(config: Config) -> int:
    """MPNet's table of relative positions, one number a head."""
    return int(config.get("relative_attention_num_buckets", 32)) * int(config["num_attention_heads"])


def disentangled_positions(config: Config) -> int:
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


def no_first_norm(config: Config) -> int:
    """ModernBERT's first layer has no norm before its attention."""
    return -int(config["hidden_size"])


def sinks_and_biases(config: Config) -> int:
    """GPT-OSS: one attention sink per head and layer, and biases of router and experts."""
    experts, hidden, inner = int(config["num_local_experts"]), int(config["hidden_size"]), int(config["intermediate_size"])
    return int(config["num_hidden_layers"]) * (int(config["num_attention_heads"]) + experts * (1 + 2 * inner + hidden))


def latent_norms(config: Config) -> int:
    """DeepSeek: the norms of its narrow layers."""
    return int(config["num_hidden_layers"]) * (int(config["kv_lora_rank"]) + int(config.get("q_lora_rank") or 0))
