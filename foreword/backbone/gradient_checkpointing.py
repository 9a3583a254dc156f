"""Gradient checkpointing of a model that stays in eval mode: layers forget activations and compute them again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.backbone.attention.attention_context import checkpoint_contexts
from foreword.errors import ModelError


@contextmanager
def recomputing(network: PreTrainedModel, name: str) -> Iterator[None]:
    """Checkpoint every layer of forward passes made inside the block; the backward pass may come later.

    transformers checkpoints only layers whose own `training` flag is set. The flag is raised on the layer modules alone, so dropout of
    their sub-modules stays off, and lowered again at the end, because a checkpointing layer would ignore the cache that generation needs.
    Raises ModelError where there are no such layers, and where a layer itself holds dropout, which its flag would switch on.
    """
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"model '{name}' has no layers that transformers can checkpoint; train without gradient checkpointing.")
    noisy = [rate for layer in layers if isinstance(rate := vars(layer).get("dropout"), float) and rate > 0]
    if noisy:
        raise ModelError(
            f"model '{name}' has dropout {noisy[0]} in its layers, which gradient checkpointing would switch on; "
            "load it by its name, which leaves dropout out, or train without gradient checkpointing."
        )
    try:
        for layer in layers:
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, context_fn=checkpoint_contexts)  # type: ignore[assignment]  # torch types no attributes of modules
            layer.gradient_checkpointing = layer.training = True
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
