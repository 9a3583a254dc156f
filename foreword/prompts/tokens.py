"""Virtual tokens, which a model reads before (or inside) the text. The flat form [P, W] is PEFT's `prompt_embeddings`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.errors import AdapterError
from foreword.shape import KVShape
from foreword.specs import Window


@final
@dataclass(frozen=True)
class EmbeddingPrefix:
    """Virtual tokens at the input site: `vectors` [P, E] among the input embeddings."""

    vectors: Float[Tensor, "P E"]

    @property
    def length(self) -> int:
        return self.vectors.shape[0]

    def to(self, device: torch.device) -> EmbeddingPrefix:
        """The same on a device."""
        return EmbeddingPrefix(self.vectors.to(device))


@final
@dataclass(frozen=True)
class KVPrefix:
    """Virtual tokens at the kv site: keys and values [K, P, D] for each layer index that has them.

    Keys are as attention sees them, after any rotary embedding. `window` "model" lets the prefix fade with a sliding window, "pinned" keeps it.
    """

    keys: dict[int, Float[Tensor, "K P D"]]
    values: dict[int, Float[Tensor, "K P D"]]
    window: Window = "pinned"

    @property
    def length(self) -> int:
        return next(iter(self.keys.values())).shape[1]

    def to(self, device: torch.device) -> KVPrefix:
        """The same on a device."""
        keys, values = ({index: side.to(device) for index, side in of.items()} for of in (self.keys, self.values))
        return KVPrefix(keys, values, self.window)

    def cast(self, device: torch.device, dtype: torch.dtype) -> KVPrefix:
        """The same on a device and in a dtype, as contiguous tensors."""
        keys, values = ({index: side.to(device, dtype).contiguous() for index, side in of.items()} for of in (self.keys, self.values))
        return KVPrefix(keys, values, self.window)


VirtualTokens = EmbeddingPrefix | KVPrefix


def unflatten_kv(flat: Float[Tensor, "P W"], layers: Sequence[int], shapes: Sequence[KVShape], window: Window) -> KVPrefix:
    """Read [P, W] as keys and values: layer-major, key before value, then head, then number (PEFT's order)."""
    expected = sum(shape.width for shape in shapes)
    if flat.shape[1] != expected:
        raise AdapterError(
            f"the prefix has width {flat.shape[1]}, but these {len(layers)} layers need {expected}; use the base model that it was trained on."
        )
    keys: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    for index, shape, part in zip(layers, shapes, flat.split([shape.width for shape in shapes], dim=1), strict=True):
        pair = part.view(flat.shape[0], 2, shape.heads, shape.dim).permute(1, 2, 0, 3)  # [2, K, P, D]
        keys[index], values[index] = pair[0], pair[1]
    return KVPrefix(keys, values, window)


def flatten_kv(prefix: KVPrefix) -> Float[Tensor, "P W"]:
    """The inverse of `unflatten_kv`."""
    parts = []
    for index in sorted(prefix.keys):
        pair = torch.stack([prefix.keys[index], prefix.values[index]])  # [2, K, P, D]
        parts.append(pair.permute(2, 0, 1, 3).reshape(prefix.length, -1))
    return torch.cat(parts, dim=1)
