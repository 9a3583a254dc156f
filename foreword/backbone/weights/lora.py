"""LoRA by PEFT, in a separate module tree over the frozen weights.

PEFT keeps which LoRA is active as state of the layers, which two threads would share and which gradient checkpointing could find changed. Here each
LoRA gets its own tree of modules over the same tensors: the frozen model never holds a LoRA, and any number of them read at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.weights.lora_layers import target_layers
from foreword.backbone.weights.weight_sharing import share
from foreword.errors import ModelError
from foreword.recipe import LoraSpec

LORA = "lora."  # before PEFT's own names in an adapter's tensors
_PEFT = "base_model.model."  # what PEFT puts before a module's name
_ADAPTER = "default"


@final
class LoraLayers:
    """One LoRA inside a network: A [r, n] and B [m, r] of each chosen layer, in fp32, under PEFT's names."""

    def __init__(self, network: PreTrainedModel, spec: LoraSpec, model: str) -> None:
        self.spec, self._model = spec, model
        self._layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
        named = {name: parameter for name, parameter in network.named_parameters() if ".lora_" in name}
        self._named = {f"{LORA}{_PEFT}{name.replace(f'.{_ADAPTER}.', '.')}": parameter for name, parameter in named.items()}
        for parameter in self._named.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(not spec.frozen)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained: nothing of a frozen LoRA."""
        return [] if self.spec.frozen else list(self._named.values())

    def state(self) -> dict[str, Tensor]:
        """A copy of the tensors, under `lora.` and PEFT's names."""
        return {name: parameter.detach().clone() for name, parameter in self._named.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load a state; names that are not LoRA's are ignored. Raises ModelError for a LoRA of another base."""
        given = {name: tensor for name, tensor in state.items() if name.startswith(LORA)}
        for name in sorted(given.keys() ^ self._named.keys()):
            short = name.removeprefix(LORA + _PEFT)
            has = f"no {short}, where" if name in self._named else f"{short}, but"
            need = "reads one" if name in self._named else "has no place for it"
            raise ModelError(f"the LoRA has {has} '{self._model}' {need}; load it on its own base model, with its own targets.")
        for name, parameter in self._named.items():
            if given[name].shape != parameter.shape:
                raise ModelError(
                    f"the LoRA's {name.removeprefix(LORA + _PEFT)} has shape {list(given[name].shape)}, but '{self._model}' needs "
                    f"{list(parameter.shape)} for r {self.spec.r}; load it on its own base model."
                )
            parameter.copy_(given[name])

    def train(self, mode: bool = True) -> None:
        """Switch LoRA's own dropout, the only one there is."""
        for layer in self._layers:
            layer.lora_dropout.train(mode)


def attach(
    model: FrozenModel, spec: LoraSpec, *, tensors: Mapping[str, Tensor] | None = None, seed: int = 0
) -> tuple[FrozenModel, LoraLayers]:
    """The model that reads with a LoRA, and the LoRA: fresh (B = 0, so at first it is the frozen model) or with the numbers of a state.

    The weights are shared, never copied, and `model` itself goes on without LoRA. Raises UsageError for targets that match nothing,
    ModelError for numbers that do not fit.
    """
    network = share(model.network)
    chosen = target_layers(network, spec, model.name)
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]  # typed as int, read as a float
        target_modules=sorted(chosen),
        use_rslora=spec.rslora,
        lora_dropout=spec.dropout,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in chosen.values()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well
        inject_adapter_in_model(config, network, _ADAPTER)
    view = model.over(network)
    layers = LoraLayers(network, spec, model.name)
    if tensors is not None:
        layers.load(tensors)
    return view, layers
