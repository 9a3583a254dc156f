"""Which attention layers a model has, and the shapes of their keys and values: found by one tiny forward pass, checked against the config."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.errors import ModelError
from foreword.families.registry import family_of
from foreword.shape import ModelShape


@dataclass(frozen=True)
class _Met:
    """K and the widths of a key and of a value of every attention, in the order in which a forward pass meets them."""

    shapes: dict[nn.Module, tuple[int, int, int]] = field(default_factory=dict)

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.shapes.setdefault(module, (key.shape[1], key.shape[3], value.shape[3]))
        return key, value, mask


@torch.no_grad()
def number_attentions(network: PreTrainedModel, shape: ModelShape) -> dict[nn.Module, int]:
    """Number the attention modules as `ModelShape.kv` does, by the order in which a forward pass meets them.

    Raises ModelError if their number, or the shape of their keys or values, is not that of the config.
    """
    met = _Met()
    ids = torch.zeros(1, 2, dtype=torch.long, device=network.device)
    both = {"decoder_input_ids": ids, "use_cache": False} if shape.kind == "encoder-decoder" else {}
    network.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), foreword=met, **both)
    modules = list(met.shapes)
    first = [kv.part for kv in shape.kv].count("encoder")
    if first:  # a decoder's layer has self-attention, then cross-attention
        modules = [*modules[:first], *modules[first::2], *modules[first + 1 :: 2]]
    if len(modules) != len(shape.kv):
        raise ModelError(
            f"a model of type '{shape.family}' has {len(modules)} attention layers that take a prefix, but its config says {len(shape.kv)}; "
            "load it with transformers' own class, without remote code."
        )
    if "kv" in family_of(shape.family).sites:  # elsewhere no key is ever stored
        _check([met.shapes[module] for module in modules], shape)
    return {module: slot for slot, module in enumerate(modules)}


def _check(met: list[tuple[int, int, int]], shape: ModelShape) -> None:
    """Raise ModelError for the first attention whose keys or values have another shape than in the config."""
    for slot, ((heads, key, value), kv) in enumerate(zip(met, shape.kv, strict=True)):
        if (heads, key, value) != (kv.heads, kv.dim, kv.dim):
            layer = sum(other.part == kv.part for other in shape.kv[:slot])
            place = f"layer {layer}" if kv.part == "self" else f"{kv.part} layer {layer}"
            raise ModelError(
                f"{place} of a model of type '{shape.family}' has {heads} key heads of width {key} and values of width {value}, but its config "
                f"says {kv.heads} heads of width {kv.dim}; load it with the config that its weights were saved with."
            )
