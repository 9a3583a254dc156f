"""The dimensions of a base model that a prompt must match."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["causal", "encoder", "encoder-decoder"]
Part = Literal["self", "encoder", "decoder", "cross"]


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
    """The dimensions of a base model that soft prompts depend on. `embedding` is E, the width of an input embedding (H, except where a model projects).

    `kv` has one entry for each attention with weights of its own: ALBERT's layers share one, an encoder–decoder has its encoder's,
    then its decoder's, then the cross-attentions.
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
        """The parts that can have a prefix, in the order of `kv`."""
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
        """As JSON; defaults of causal models are left out, so that a causal shape keeps its digest."""
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
