"""Full fine-tuning: a copy of the network whose every weight trains. The frozen model stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.quantization import quantization_of
from foreword.errors import ModelError

FULL = "full."  # before a weight's own name in an adapter's tensors


@final
class FullWeights:
    """Every weight of a copied network, in fp32. In memory 4 bytes a weight to read, 16 to train: gradient and AdamW's two moments as well."""

    def __init__(self, network: PreTrainedModel, base: PreTrainedModel, model: str) -> None:
        self._named, self._base, self._model = dict(network.named_parameters()), dict(base.named_parameters()), model

    def parameters(self) -> list[nn.Parameter]:
        """What is trained: everything."""
        return list(self._named.values())

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights that differ from the frozen model's, under `full.` and their names."""
        changed = {}
        for name, parameter in self._named.items():
            if not torch.equal(parameter.detach(), self._base[name].detach().float()):
                changed[FULL + name] = parameter.detach().clone()
        return changed

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a state, and the frozen model's where it has none. Raises ModelError for weights of another base."""
        for name in sorted(state):
            if not name.startswith(FULL):
                continue
            short = name.removeprefix(FULL)
            shape = list(self._named[short].shape) if short in self._named else "none"
            if shape != list(state[name].shape):
                raise ModelError(
                    f"the adapter's weight {short} has shape {list(state[name].shape)}, but '{self._model}' has {shape}; "
                    "load it on its own base model."
                )
        for name, parameter in self._named.items():
            parameter.copy_(state.get(FULL + name, self._base[name]))

    def train(self, mode: bool = True) -> None:
        """Does nothing: dropout stays off."""


def full_copy(model: FrozenModel, *, tensors: Mapping[str, Tensor] | None = None) -> tuple[FrozenModel, FullWeights]:
    """A model of the same base with weights of its own, and these weights: those of the frozen model, or with a state's changes.

    Raises ModelError for a quantised base, whose integers have no gradients.
    """
    quantization = quantization_of(model.network)
    if quantization is not None:
        raise ModelError(
            f"'{model.name}' is loaded in {quantization}, which cannot be trained in full; load it without quantize, or use LoRA."
        )
    view = model.over(copy.deepcopy(model.network).float())
    view.network.requires_grad_(True)
    weights = FullWeights(view.network, model.network, model.name)
    if tensors is not None:
        weights.load(tensors)
    return view, weights
