"""A base model's config without its weights: from a folder, from the hub's cache on this machine, or from plain numbers on the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from foreword.errors import ModelError, UsageError

CONFIG = "config.json"
_INSTEAD = "give a folder with config.json, a hub id that was downloaded before, or --hidden, --layers, --heads and --vocabulary"


def _option(help: str) -> Any:
    return field(default=None, metadata={"help": help})


@dataclass(frozen=True)
class ShapeOptions:
    """A model by its numbers alone, read as a Llama-like causal model."""

    hidden: int | None = _option("Hidden width H.")
    layers: int | None = _option("Layers L.")
    heads: int | None = _option("Attention heads.")
    vocabulary: int | None = _option("Vocabulary V.")
    kv_heads: int | None = _option("Key/value heads K; by default as many as heads.")
    head_dim: int | None = _option("Width D of a head; by default H / heads.")
    intermediate: int | None = _option("Width of the gated MLP; by default 8/3 of H.")
    positions: int | None = _option("Positions of the context; by default without a limit.")

    def __post_init__(self) -> None:
        for name, value in self.given.items():
            if value < 1:
                raise UsageError(f"{flag(name)} is {value}, but it must be a whole number of at least 1.")

    @property
    def given(self) -> dict[str, int]:
        """The options that were given."""
        return {name: getattr(self, name) for name in (f.name for f in fields(self)) if getattr(self, name) is not None}

    def config(self) -> dict[str, Any]:
        """As transformers writes it; raises UsageError for a number that is missing or does not divide."""
        missing = [flag(name) for name in ("hidden", "layers", "heads", "vocabulary") if name not in self.given]
        if missing:
            raise UsageError(
                f"no model was given, and a shape without {', '.join(missing)}; give --model, or --hidden, --layers, --heads and --vocabulary."
            )
        hidden, heads = self.given["hidden"], self.given["heads"]
        if hidden % heads and self.head_dim is None:
            raise UsageError(f"--hidden {hidden} cannot be divided among --heads {heads}; correct one of them, or give --head-dim.")
        if heads % (self.kv_heads or heads):
            raise UsageError(f"--heads {heads} cannot be divided among --kv-heads {self.kv_heads}; correct one of them.")
        return {
            "model_type": "llama",
            "hidden_size": hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": self.kv_heads or heads,
            "head_dim": self.head_dim or hidden // heads,
            "vocab_size": self.vocabulary,
            "intermediate_size": self.intermediate or round(8 * hidden / 3),
            "max_position_embeddings": self.positions,
            "tie_word_embeddings": False,
        }


def flag(name: str) -> str:
    """An option as it is typed."""
    return "--" + name.replace("_", "-")


def read_config(name: str) -> dict[str, Any]:
    """The config of a model, without torch; raises ModelError if it does not exist or cannot be read."""
    if name.endswith(".gguf"):
        raise ModelError(f"'{name}' is a GGUF file, which is not supported here; {_INSTEAD}.")
    path = Path(name) / CONFIG if Path(name).is_dir() else _cached(name)
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the config of model '{name}' cannot be read ({_why(error)}); {_INSTEAD}.") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(f"'{path}' is not a model config, it has no model_type; {_INSTEAD}.")
    return config


def _cached(name: str) -> Path:
    """Where the hub's cache has the config of a hub id."""
    from huggingface_hub import try_to_load_from_cache  # a slow import, which a folder does not need
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG)
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise ModelError(f"model '{name}' is neither a folder here nor in the hub's cache on this machine; {_INSTEAD}.")
    return Path(found)


def _why(error: Exception) -> str:
    return (
        "there is none"
        if isinstance(error, FileNotFoundError)
        else "it is not valid JSON"
        if isinstance(error, ValueError)
        else type(error).__name__
    )
