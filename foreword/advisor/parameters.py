"""How many numbers a recipe trains and keeps for one task, exactly: prompts, re-parameterisations, heads, LoRA, all weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foreword.advisor.architecture import Architecture, Matrix
from foreword.errors import UsageError
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import Reparam

FLOAT32 = 4  # bytes of a number in an adapter's file

_ATTENTION = ("q", "v", "qkv", "kv_b")  # queries and values; fused matrices as a whole
_NOT_LINEAR = ("expert", "router")  # tensors of a mixture, which LoRA does not reach
_BESIDE_EXPERTS = (
    "gate",
    "up",
    "down",
)  # PEFT takes these names for the experts' own, so LoRA leaves them out (`backbone/weights/lora.py`)
_TARGETS = ("q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down")


@dataclass(frozen=True)
class Head:
    """A linear head of `outputs` numbers a state; those of causal models have no bias."""

    outputs: int
    bias: bool = True

    def parameters(self, hidden: int) -> int:
        """C·H, and C with a bias."""
        return self.outputs * (hidden + self.bias)


@dataclass(frozen=True)
class Numbers:
    """Numbers of trained parameters, and of those kept for one task without re-parameterisations; both include the head."""

    trained: int
    stored: int
    head: int = 0


def count_numbers(recipe: Recipe, network: Architecture, head: Head | None = None) -> Numbers:
    """Trained and stored numbers of a recipe; raises UsageError for layers or targets that the model does not have."""
    trained = stored = own = head.parameters(network.shape.states) if head else 0
    if recipe.prompt:
        trained += reparam_parameters(recipe.prompt.reparam, recipe.prompt.length, recipe.prompt.width(network.shape))
        stored += recipe.prompt.parameters(network.shape)
    if recipe.lora:
        numbers = lora_parameters(recipe.lora, network)
        trained += 0 if recipe.lora.frozen else numbers
        stored += numbers
    if recipe.full:
        trained, stored = trained + network.parameters, stored + network.parameters
    return Numbers(trained, stored, own)


def reparam_parameters(reparam: Reparam, length: int, width: int) -> int:
    """What trains in place of P·W numbers: the networks of `prompts/reparam.py`, with inner width H'.

    MLP: P·H' + (H'² + H') + (H'·W + W). LSTM: P·H' + both directions of each layer + (2h·H' + H') + (H'·W + W), h = ⌈H'/2⌉.
    """
    inner = reparam.hidden
    outer = inner * width + width
    if reparam.kind == "mlp":
        return length * inner + inner * inner + inner + outer
    if reparam.kind == "lstm":
        half = (inner + 1) // 2
        inputs = [inner] + [2 * half] * (reparam.layers - 1)
        lstm = sum(2 * 4 * half * (size + half + 2) for size in inputs)
        return length * inner + lstm + 2 * half * inner + inner + outer
    return length * width


def lora_parameters(lora: LoraSpec, network: Architecture) -> int:
    """Σ r·(m + n) over the chosen matrices [m, n]; raises UsageError naming a target that sizing does not know."""
    return sum(lora.r * (matrix.rows + matrix.columns) * matrix.count for matrix in chosen_matrices(lora, network))


def chosen_matrices(lora: LoraSpec, network: Architecture) -> Iterator[Matrix]:
    """The matrices that a LoRA adapts."""
    left_out = (*_NOT_LINEAR, *_BESIDE_EXPERTS) if network.mixture else ()
    linear = [matrix for matrix in network.matrices if matrix.role not in left_out]
    if lora.targets == "all-linear":
        yield from linear
        return
    names = _ATTENTION if lora.targets == "attention" else (lora.targets,) if isinstance(lora.targets, str) else lora.targets
    roles = [name.removesuffix("_proj") for name in names]
    there = {matrix.role for matrix in linear}
    for role in roles:
        if role not in there and lora.targets != "attention":
            known = ", ".join(role for role in _TARGETS if role in there)
            raise UsageError(f"LoRA's target '{role}' is not a matrix of this model; choose attention, all-linear, or some of {known}.")
    yield from (matrix for matrix in linear if matrix.role in roles)
