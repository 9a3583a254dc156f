"""A `ModelShape` from a transformers `config.json`, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foreword.errors import ModelError
from foreword.families.base import Family
from foreword.families.registry import FAMILIES
from foreword.shape import Kind, KVShape, ModelShape

_UNKNOWN = Family("")  # a type without a record is read as a causal model


def _first(config: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if config.get(name) is not None:
            return config[name]
    return None


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Read a `ModelShape` from a transformers `config.json`; raises ModelError naming the first integer that is missing."""
    family = str(config.get("model_type"))
    hidden, vocabulary = _need(config, "hidden_size", "n_embd", "d_model", "dim"), _need(config, "vocab_size")
    record = FAMILIES.get(family, _UNKNOWN)
    kind: Kind = "encoder-decoder" if config.get("is_encoder_decoder") else "encoder" if record.kind == "encoder" else "causal"
    if config.get("share_encoder_decoder_embeddings") is False:
        raise ModelError(
            f"a model of type '{family}' has separate vocabularies, which are not supported; use one whose encoder and decoder share theirs."
        )
    positions = int(_first(config, "max_position_embeddings", "n_positions", "max_seq_len") or 1 << 30)
    if kind == "encoder-decoder" and config.get("relative_attention_num_buckets"):
        positions = 1 << 30  # T5's n_positions is the length of its pre-training, not a limit
    return ModelShape(
        family=family,
        hidden=hidden,
        embedding=int(_first(config, "word_embed_proj_dim", "embedding_size") or hidden),
        vocabulary=vocabulary,
        positions=positions - (int(config.get("pad_token_id") or 0) + 1 if record.after_pad else 0),
        kv=_both_stacks(config, hidden) if kind == "encoder-decoder" else _one_stack(config, hidden, record),
        kind=kind,
    )


def _need(config: Mapping[str, Any], *names: str) -> int:
    """The first of these that the config has; raises ModelError naming the field's usual name."""
    found = _first(config, *names)
    if found is None:
        raise ModelError(
            f"the config of model type '{config.get('model_type')}' has no {names[0]}; give the config of a single text transformer."
        )
    return int(found)


def _one_stack(config: Mapping[str, Any], hidden: int, record: Family) -> tuple[KVShape, ...]:
    layers = _need(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _need(config, "num_attention_heads", "n_head", "num_heads", "n_heads")
    if record.num_attentions is not None:
        layers = record.num_attentions(config)
    kv_heads = 1 if config.get("multi_query") else int(_first(config, "num_key_value_heads") or heads)
    dim = int(_first(config, "head_dim") or hidden // heads)
    return tuple(KVShape(kv_heads, dim, window) for window in _windows(config, layers))


def _both_stacks(config: Mapping[str, Any], hidden: int) -> tuple[KVShape, ...]:
    encoder = _need(config, "encoder_layers", "num_layers")
    decoder = int(_first(config, "decoder_layers", "num_decoder_layers") or encoder)
    heads = {side: _need(config, f"{side}_attention_heads", "num_heads") for side in ("encoder", "decoder")}
    dims = {side: int(_first(config, "d_kv") or hidden // count) for side, count in heads.items()}
    own = [KVShape(heads["encoder"], dims["encoder"], part="encoder")] * encoder
    theirs = [KVShape(heads["decoder"], dims["decoder"], part=part) for part in ("decoder", "cross") for _ in range(decoder)]
    return (*own, *theirs)


def _windows(config: Mapping[str, Any], layers: int) -> list[int | None]:
    """The sliding window of each layer; `layer_types` decides where a config has it."""
    size = _first(config, "sliding_window", "local_attention")
    if not size or config.get("use_sliding_window") is False:
        return [None] * layers
    types = config.get("layer_types")
    if types is None:
        return [int(size)] * layers
    return [int(size) if kind == "sliding_attention" else None for kind in types]
