"""Arithmetic that a training step cannot avoid, and the fastest matrix product this machine does on the model's own shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def layer_weights(network: PreTrainedModel) -> Iterator[Tensor]:
    """The matrices every token passes: those of the layers, without embeddings and output matrix."""
    for module in network.base_model.modules():
        if not isinstance(module, nn.Embedding):
            yield from (p for p in module.parameters(recurse=False) if p.dim() == 2)


def needed(network: PreTrainedModel, rows: int, text: int, *, soft: int, prefix: int, labels: int) -> float:
    """Floating-point operations of the matrix products of one step; `soft` and `prefix` are virtual tokens of a row, `labels` of the batch.

    With N = rows·(text + soft) tokens, layer weights w, L layers, A query heads of width D, and the (query, key) pairs a causal
    mask shows: forward 2·N·w + 4·pairs·A·D·L; gradients of activations 2·N·w + 8·pairs·A·D·L, the first layer's left out (only
    virtual tokens need it); output matrix 4·labels·H·V. Gradients of weights, an encoder of the prompt and all else count as nothing, so the
    share of the peak is rather too small than too large.
    """
    config = network.config
    weights = sum(weight.numel() for weight in layer_weights(network))
    length = text + soft
    pairs = rows * (length * (length + 1) / 2 + length * prefix)
    heads = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    linear = 2 * rows * length * weights
    attention = 4 * pairs * heads * config.num_hidden_layers
    backward = (linear + 2 * attention) * (1 - 1 / config.num_hidden_layers)
    return linear + attention + backward + 4 * labels * config.hidden_size * config.vocab_size


def peak(network: PreTrainedModel, tokens: int, *, seconds: float = 0.05) -> float:
    """Floating-point operations a second of the fastest product of `tokens` rows with one of the layer matrices, either way round."""
    best = 0.0
    for rows, columns in sorted({tuple(weight.shape) for weight in layer_weights(network)}):
        weight = torch.randn(rows, columns, dtype=network.dtype)
        left, right = (torch.randn(tokens, width, dtype=network.dtype) for width in (rows, columns))
        operations = 2.0 * tokens * rows * columns
        for product in (lambda a=left, w=weight: a @ w, lambda a=right, w=weight: nn.functional.linear(a, w)):
            best = max(best, operations / _fastest(product, seconds))
    return best


@torch.inference_mode()
def _fastest(product: Callable[[], Tensor], seconds: float) -> float:
    """The shortest of the calls that fit in `seconds`, at least three after one to warm up."""
    product()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begun = time.perf_counter()
        product()
        times.append(time.perf_counter() - begun)
    return min(times)
