"""Methods that change weights: which model reads with a recipe's LoRA or with weights of its own, and what of it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import ModelError
from foreword.recipe import Recipe


@runtime_checkable
class WeightAdapter(Protocol):
    """Trained weights inside a model."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """What gets gradients."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The numbers as an adapter keeps them: `lora.…` or `full.…`."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the numbers of a state."""
        ...

    def train(self, mode: bool = True) -> None:
        """Switch dropout of its own, if it has any."""
        ...


def apply(
    model: FrozenModel, recipe: Recipe, *, tensors: Mapping[str, Tensor] | None = None, seed: int = 0
) -> tuple[FrozenModel, WeightAdapter | None]:
    """The model that reads with a recipe, and its trained weights if there are any; `tensors` are an adapter's. The frozen model never changes.

    Raises ModelError for a base that is not quantised as the recipe says.
    """
    if recipe.quantize not in (None, model.quantization):
        found = f"in {model.quantization}" if model.quantization else "without quantisation"
        raise ModelError(
            f"method '{recipe.method}' is for a base in {recipe.quantize}, but '{model.name}' is loaded {found}; "
            f"load it with quantize='{recipe.quantize}'."
        )
    if recipe.full:
        from foreword.backbone.weights.full_finetuning import full_copy

        return full_copy(model, tensors=tensors)
    if recipe.lora is not None:
        from foreword.backbone.weights.lora import attach  # PEFT takes seconds to import, and most runs are without LoRA

        return attach(model, recipe.lora, tensors=tensors, seed=seed)
    return model, None
