"""The devices that tests of devices run on, and tiny models there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import tiny
import tiny_encoders
import tiny_seq2seq
import torch
from contract.laws import kind_of
from pretended_device import CUDA, pretended_gpu

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.quantization import has_experts

DEVICES = [
    "pretended",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]),
]


def entered(kind: str) -> Iterator[torch.device]:
    """The device, while it can be used; torch warns where it is asked for autocasting on a GPU that it was not built for."""
    with pretended_gpu() if kind == "pretended" else nullcontext():
        yield CUDA


def on(name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> FrozenModel:
    """A tiny model of any kind on a device."""
    made = {"causal": tiny, "encoder": tiny_encoders, "encoder-decoder": tiny_seq2seq}[kind_of(name)].build(name)
    made.network.to(torch.device(device), dtype)
    if has_experts(made.network.config) and not torch.cuda.is_available():
        made.network.set_experts_implementation("eager")  # on a GPU transformers takes kernels that a CPU does not have
    return made
