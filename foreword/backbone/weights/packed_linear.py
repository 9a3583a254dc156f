"""Linear layers whose weights are kept in the order that oneDNN's matrix products read, as vLLM does on CPUs: without it every product orders them anew."""

from __future__ import annotations

from typing import final

import psutil
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.weights.weight_sharing import share

_SPARE = 4  # the second copy of the weights must fit so many times into the memory that is free


@final
class PackedLinear(nn.Module):
    """y = x·Wᵀ + b over packed weights; equal to the bit to the layer that it replaces."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        self._bias = None if bias is None else bias.detach()

    def forward(self, given: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return torch.ops.mkldnn._linear_pointwise(given, self._packed, self._bias, "none", [], "")


def pack_linear_layers(model: FrozenModel) -> FrozenModel:
    """The same model over packed weights, or itself where that is no help: not in bf16 on a CPU, quantised, or too large for a second copy.

    Everything else is shared with the model, which stays as it is.
    """
    if not _suits(model):
        return model
    network = share(model.network)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, PackedLinear(layer.weight, layer.bias))
            elif type(layer) is Conv1D:
                setattr(parent, name, PackedLinear(layer.weight.T, layer.bias))
    return model.over(network)


def _suits(model: FrozenModel) -> bool:
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or model.quantization or model.shape.kind == "encoder-decoder":
        return False
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    num_bytes = sum(weight.nbytes for weight in model.network.parameters())
    return _SPARE * num_bytes <= psutil.virtual_memory().available
