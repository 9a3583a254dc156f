"""The integers of a base model that a prompt must agree with; read from a config, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from foreword.errors import ModelError

Kind = Literal["causal", "encoder", "encoder-decoder"]
Part = Literal["self", "encoder", "decoder", "cross"]

# Model types whose tokens see both sides; where a config counts positions from behind its pad token, as RoBERTa's does.
_ENCODERS = {"bert", "roberta", "xlm-roberta", "electra", "distilbert", "albert", "mpnet", "deberta-v2", "modernbert"}
_AFTER_PAD = {"roberta", "xlm-roberta", "mpnet"}


@dataclass(frozen=True)
class KVShape:
    """Keys and values of one attention: K heads of D numbers; `window` is the sliding window in tokens, or None.

    `part` is "self" on models of one stack, else "encoder", "decoder" (self-attention) or "cross".
    """

    heads: int
    dim: int
    window: int | None = None
    part: Part = "self"

    @property
    def width(self) -> int:
        """Numbers one virtual token stores in this layer: 2·K·D."""
        return 2 * self.heads * self.dim


@dataclass(frozen=True)
class ModelShape:
    """What a soft prompt must know of its base model. `embedding` is E, the width of an input embedding (H, except where a model projects).

    `kv` has one entry for each attention with weights of its own: ALBERT's layers share one, an encoder–decoder has its encoder's,
    then its decoder's, then those that look across.
    """

    family: str
    hidden: int
    embedding: int
    vocabulary: int
    positions: int
    kv: tuple[KVShape, ...]
    kind: Kind = "causal"

    @property
    def num_layers(self) -> int:
        """Entries of `kv`."""
        return len(self.kv)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts a prefix can stand in, in the order of `kv`."""
        return tuple(dict.fromkeys(layer.part for layer in self.kv))

    @property
    def states(self) -> int:
        """The width of the last states, which a head reads: OPT-350M projects them back to the width of its embeddings."""
        return self.embedding if self.kind == "causal" else self.hidden

    @property
    def windowed(self) -> bool:
        """Whether any layer has a sliding window."""
        return any(layer.window is not None for layer in self.kv)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what every causal model has is left out, so that a causal shape keeps its digest."""
        plain = asdict(self)
        if self.kind == "causal":
            del plain["kind"]
        for layer in plain["kv"]:
            if layer["part"] == "self":
                del layer["part"]
        return plain

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
    family = str(config.get("model_type"))
    hidden, vocabulary = _need(config, "hidden_size", "n_embd", "d_model", "dim"), _need(config, "vocab_size")
    kind: Kind = "encoder-decoder" if config.get("is_encoder_decoder") else "encoder" if family in _ENCODERS else "causal"
    if config.get("share_encoder_decoder_embeddings") is False:
        raise ModelError(
            f"a model of type '{family}' has a vocabulary of its own for answers, which is not read; use one whose stacks share theirs."
        )
    positions = int(_first(config, "max_position_embeddings", "n_positions", "max_seq_len") or 1 << 30)
    if kind == "encoder-decoder" and config.get("relative_attention_num_buckets"):
        positions = 1 << 30  # T5's n_positions is the length of its pre-training, not a limit
    return ModelShape(
        family=family,
        hidden=hidden,
        embedding=int(_first(config, "word_embed_proj_dim", "embedding_size") or hidden),
        vocabulary=vocabulary,
        positions=positions - (int(config.get("pad_token_id") or 0) + 1 if family in _AFTER_PAD else 0),
        kv=_both_stacks(config, hidden) if kind == "encoder-decoder" else _one_stack(config, hidden, family),
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


def _one_stack(config: Mapping[str, Any], hidden: int, family: str) -> tuple[KVShape, ...]:
    layers = _need(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _need(config, "num_attention_heads", "n_head", "num_heads", "n_heads")
    if family == "albert":
        layers = int(config.get("num_hidden_groups") or 1) * int(config.get("inner_group_num") or 1)
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
