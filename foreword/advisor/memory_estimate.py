"""Memory estimates: a training step, and the cache of a request, without what only a run can show.

    training = weights + gradients + optimiser + activations + logits

    weights      base numbers × bytes of their precision; full fine-tuning has a copy in fp32 beside them; a quantised base keeps its linear
                 layers in 0.516 (NF4, doubly quantised) or 1 byte a number
    gradients    4 bytes a trained number (everything that trains is fp32)
    optimiser    8 bytes a trained number, AdamW's two moments
    activations  layers × rows × columns × (b·(m·I + 2·Q + 2·K·D) + 4·normed): what backward needs of a layer whose weights are frozen, with
                 fused attention. m = 3 for a gated MLP, else 1; I its width, Q that of all queries, `normed` the numbers that norms read.
                 Weights that train add their inputs. With gradient checkpointing: H a column and layer, and one layer whole.
                 On a CPU attention is not fused: each head's weights over all columns come on top.
    logits       rows × labelled tokens × V × (b + 8); a head has none

Left out: the allocator's waste, the libraries and the device's own context (about half a gigabyte on a GPU), an activation function made of several
steps (GPT-2's), and evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreword.advisor.architecture import Architecture
from foreword.advisor.parameters import FLOAT32, Numbers, chosen_matrices
from foreword.advisor.workload import BYTES, Load
from foreword.recipe import Recipe
from foreword.specs import PromptSpec

_QUANTIZED = {"nf4": 0.5 + 0.127 / 8, "int8": 1.0}  # QLoRA (arXiv:2305.14314, §3): quantisation constants take 0.127 bits a number
_MOMENTS = 8
_GATED, _PLAIN = 3, 1


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step by use."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.gradients + self.optimiser + self.activations + self.logits


def training_memory(recipe: Recipe, network: Architecture, numbers: Numbers, load: Load) -> TrainingMemory:
    """The formula above. A recipe that trains a head alone needs no activations of the layers."""
    trained = numbers.trained
    own_head = numbers.head > 0
    return TrainingMemory(
        weights=base_bytes(network, load.dtype, recipe.quantize) + (FLOAT32 * network.parameters if recipe.full else 0),
        gradients=FLOAT32 * trained,
        optimiser=_MOMENTS * trained,
        activations=_activations(recipe, network, load) if recipe.trains else 0,
        logits=0 if own_head else load.batch_size * load.answer_tokens * network.shape.vocabulary * (_width(recipe, load) + 8),
    )


def base_bytes(network: Architecture, dtype: str, quantize: str | None = None) -> int:
    """Bytes of the frozen model."""
    linear = sum(matrix.numbers for matrix in network.matrices if matrix.role not in ("expert", "router")) if quantize else 0
    return round(linear * _QUANTIZED.get(quantize or "", 0)) + (network.parameters - linear) * BYTES[dtype]


def _width(recipe: Recipe, load: Load) -> int:
    """Bytes of a number while computing: full fine-tuning computes in fp32."""
    return FLOAT32 if recipe.full else BYTES[load.dtype]


def _activations(recipe: Recipe, network: Architecture, load: Load) -> int:
    width, shape = _width(recipe, load), network.shape
    soft = recipe.prompt.length if recipe.prompt else 0
    tokens = load.text_tokens + load.answer_tokens
    columns = tokens + (soft if recipe.prompt and recipe.prompt.site == "input" else 0)
    mlp = (_GATED if network.gated else _PLAIN) * network.inner
    layer = width * (mlp + 2 * network.queries + shape.kv[0].width) + 4 * network.normed
    layer += _inputs(recipe, network, width)
    if not load.fused:
        layer += network.heads * (tokens + soft) * (4 + (width if width < FLOAT32 else 0))
    if load.checkpointing:
        return load.batch_size * columns * (network.depth * shape.hidden * width + layer)
    return load.batch_size * columns * network.depth * layer


def _inputs(recipe: Recipe, network: Architecture, width: int) -> int:
    """Bytes a column and layer that backward needs only because weights train: the inputs of linear layers and norms."""
    hidden = network.shape.hidden
    if recipe.full:
        return width * (network.inner + 4 * hidden)
    if not recipe.lora or recipe.lora.frozen:
        return 0
    seen = {"down": network.inner, "o": network.queries}  # LoRA reads its input in fp32; matrices of one place share it
    places = {
        ("mlp" if m.role in ("gate", "up", "gate_up") else m.role if m.role in seen else "in")
        for m in chosen_matrices(recipe.lora, network)
    }
    return FLOAT32 * sum(seen.get(place, hidden) for place in places)


def cache_bytes_per_token(prompt: PromptSpec | None, network: Architecture, dtype: str) -> int:
    """Bytes that one virtual token holds in the key/value cache of one sequence, if it is copied there: 2·K·D numbers in each attention it stands in.

    At the input site these are all attentions of a causal model, those across of an encoder–decoder, and none of an encoder, which keeps no cache.
    """
    if prompt is None:
        return 0
    if prompt.site == "kv":
        return prompt.width(network.shape) * BYTES[dtype]
    kept = {"causal": ("self",), "encoder": (), "encoder-decoder": ("cross",)}[network.shape.kind]
    return sum(kv.width for kv in network.shape.kv if kv.part in kept) * BYTES[dtype]


def context_left(prompt: PromptSpec | None, network: Architecture) -> int | None:
    """Positions left to the text, None without a limit. Keys and values leave an encoder all its positions."""
    if network.shape.positions >= 1 << 30:
        return None
    taken = prompt is not None and (prompt.site == "input" or network.shape.kind == "causal")
    return network.shape.positions - (prompt.length if prompt and taken else 0)


def added_compute(recipe: Recipe, network: Architecture, load: Load, stored: int) -> float:
    """Share of a text's own arithmetic (2 operations a weight and token) that a task adds to reading it.

    P tokens more at the input site (none once compiled to keys and values), attention to P keys and values, or LoRA's products where it is not merged.
    """
    share = 0.0
    if recipe.prompt and recipe.prompt.site == "input":
        share += recipe.prompt.length / load.text_tokens
    elif recipe.prompt:
        share += 4 * recipe.prompt.length * network.queries * network.depth / (2 * network.active)
    return share + (stored / network.active if recipe.lora else 0.0)
