"""The integers of a base model that a prompt must agree with; read from a config, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from foreword.errors import ModelError


@dataclass(frozen=True)
class KVShape:
    """Keys and values of one layer: K heads of D numbers; `window` is the sliding window in tokens, or None."""

    heads: int
    dim: int
    window: int | None = None

    @property
    def width(self) -> int:
        """Numbers one virtual token stores in this layer: 2·K·D."""
        return 2 * self.heads * self.dim


@dataclass(frozen=True)
class ModelShape:
    """What a soft prompt must know of its base model. `embedding` is E, the width of an input embedding (H, except where a model projects)."""

    family: str
    hidden: int
    embedding: int
    vocabulary: int
    positions: int
    kv: tuple[KVShape, ...]

    @property
    def num_layers(self) -> int:
        return len(self.kv)

    @property
    def windowed(self) -> bool:
        """Whether any layer has a sliding window."""
        return any(layer.window is not None for layer in self.kv)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelShape:
        layers = tuple(KVShape(**layer) for layer in data["kv"])
        return cls(**{**data, "kv": layers})

    def digest(self) -> str:
        """A short name for this shape, the same on every machine."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def _first(config: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if config.get(name) is not None:
            return config[name]
    return None


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Read a `ModelShape` from a transformers `config.json`; raises ModelError naming the first integer that is missing."""
    found = {
        "hidden_size": _first(config, "hidden_size", "n_embd", "d_model"),
        "num_hidden_layers": _first(config, "num_hidden_layers", "n_layer", "num_layers"),
        "num_attention_heads": _first(config, "num_attention_heads", "n_head", "num_heads"),
        "vocab_size": config.get("vocab_size"),
    }
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise ModelError(
            f"the config of model type '{config.get('model_type')}' has no {missing[0]}; give the config of a single text transformer."
        )
    hidden, layers, heads, vocabulary = (int(value) for value in found.values())
    kv_heads = 1 if config.get("multi_query") else int(_first(config, "num_key_value_heads") or heads)
    dim = int(_first(config, "head_dim") or hidden // heads)
    windows = _windows(config, layers)
    return ModelShape(
        family=str(config.get("model_type")),
        hidden=hidden,
        embedding=int(_first(config, "word_embed_proj_dim") or hidden),
        vocabulary=vocabulary,
        positions=int(_first(config, "max_position_embeddings", "n_positions", "max_seq_len") or 1 << 30),
        kv=tuple(KVShape(kv_heads, dim, window) for window in windows),
    )


def _windows(config: Mapping[str, Any], layers: int) -> list[int | None]:
    """The sliding window of each layer; `layer_types` decides where a config has it."""
    size = config.get("sliding_window")
    if not size or config.get("use_sliding_window") is False:
        return [None] * layers
    types = config.get("layer_types")
    if types is None:
        return [int(size)] * layers
    return [int(size) if kind == "sliding_attention" else None for kind in types]
