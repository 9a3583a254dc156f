"""Everything one run trains: a prompt with its re-parameterisation, a head, LoRA or all weights, each at a rate of its own."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from foreword.adapters.adapter import HEAD
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.weights.weight_adapters import WeightAdapter
from foreword.learning_rates import main_part, prompt_part, rate_of
from foreword.prompts.head import Head
from foreword.prompts.soft_prompt import SoftPrompt, as_tokens
from foreword.recipe import Recipe
from foreword.shape import Kind
from foreword.training import lr_scaling


@final
class TrainableModule(nn.Module):
    """A module whose parameters are exactly what is trained; calling it gives what tasks read, in the graph."""

    def __init__(self, recipe: Recipe, prompt: SoftPrompt | None, head: Head | None, weights: WeightAdapter | None) -> None:
        super().__init__()
        self.recipe, self.prompt, self.head = recipe, prompt, head
        self.weight_adapter = weights
        self.weights = nn.ParameterList(weights.parameters() if weights else [])
        self.train()  # a module starts in this mode, LoRA's dropout does not

    def train(self, mode: bool = True) -> TrainableModule:
        """Dropout of prompts and of LoRA on or off."""
        super().train(mode)
        if self.weight_adapter is not None:
            self.weight_adapter.train(mode)
        return self

    def forward(self) -> AdapterState:
        return AdapterState(self.prompt() if self.prompt else None, self.head)

    def parameter_groups(self, rate: float | None, task: str, kind: Kind) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser, for a task on a kind of base model.

        `rate` is the user's: the prompt's where there is one, else that of what is trained instead.
        """
        main = main_part(self.recipe)

        def of(part: str) -> float:
            return rate if part == main and rate is not None else rate_of(part, task, kind)

        found: list[dict[str, Any]] = []
        if self.prompt is not None:
            relative = of(prompt_part(self.prompt.spec))
            found.append({"params": list(self.prompt.reparam.parameters()), "lr": lr_scaling.absolute_rate(self.prompt, relative)})
        if len(self.weights):
            found.append({"params": list(self.weights), "lr": of("full" if self.recipe.full else "lora")})
        if self.head is not None:
            found.append({"params": list(self.head.parameters()), "lr": of("head" if found else "head-only")})
        return found

    def bake(self) -> dict[str, Tensor]:
        """The tensors as an adapter keeps them, re-parameterisations dropped."""
        baked = {KEY: self.prompt.bake()} if self.prompt else {}
        if self.head is not None:
            baked |= {HEAD + name: tensor for name, tensor in self.head.bake().items()}
        return baked | (self.weight_adapter.state() if self.weight_adapter else {})

    def adapter_state(self, baked: dict[str, Tensor], model: FrozenModel) -> AdapterState:
        """What tasks read, from baked tensors on any device (a checkpoint's are on the CPU); trained weights are put back into the model."""
        if self.weight_adapter is not None:
            self.weight_adapter.load(baked)
        head = {name.removeprefix(HEAD): tensor for name, tensor in baked.items() if name.startswith(HEAD)}
        tokens = as_tokens(baked[KEY], self.prompt.spec, model.shape) if self.prompt else None
        return AdapterState(tokens, Head.read(head) if head else None).to(model.device)
