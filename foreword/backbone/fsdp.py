"""FSDP2 for base models that do not fit on one device: every layer's weights are sharded over the processes and gathered while the layer runs."""

from __future__ import annotations

import os

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.backbone.attention.introspection import number_attentions
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import ModelError


def asked() -> bool:
    """Whether `accelerate launch --use_fsdp` started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")


def shard(model: FrozenModel, device: torch.device) -> None:
    """Shard the layers over all processes, and put everything else on this process's device.

    Embeddings and the output matrix stay whole, since soft prompts read the one and losses a few rows of the other. From here on every
    process must make the same forward passes. Raises ModelError for a quantised model and for one without layers that repeat.
    """
    layers = [module for module in model.network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if all(isinstance(layer, FSDPModule) for layer in layers) and layers:
        return  # already sharded by an earlier run
    if model.quantization is not None:
        raise ModelError(f"'{model.name}' is loaded in {model.quantization}, which cannot be sharded; launch it without --use_fsdp.")
    if not layers:
        raise ModelError(f"model '{model.name}' has no repeated layers that could be sharded; launch it without --use_fsdp.")
    model.fingerprint  # noqa: B018  (of the weights as a whole, kept from now on)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    model.network.to(device)  # type: ignore[arg-type]  # its decorator loses the overloads
    number_attentions(model.network, model.shape)  # a first pass outside inference mode: what it allocates, later passes of both kinds use
