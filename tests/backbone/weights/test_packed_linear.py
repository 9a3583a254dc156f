"""Packed weights: the same numbers to the bit, and the model that they come from stays as it is."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import wrap
from foreword.backbone.weights import packed_linear
from foreword.backbone.weights.packed_linear import PackedLinear, pack_linear_layers
from foreword.prompts.template import Row

supported = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no products in bf16")


def half(family: str) -> FrozenModel:
    return wrap(tiny.network(family).bfloat16(), tiny.tokenizer(), name=f"tiny-{family}-bf16")


@supported
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_a_packed_model_gives_the_same_numbers(family: str) -> None:
    model = half(family)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    packed = pack_linear_layers(model)
    assert packed is not model and sum(isinstance(layer, PackedLinear) for layer in packed.network.modules()) > 8
    assert not any(isinstance(layer, PackedLinear) for layer in model.network.modules())
    batch = collate([Row((1, 40, 41, 42)), Row((1, 43))])
    with torch.inference_mode():
        found, expected = (each.hidden(batch) for each in (packed, model))
    assert torch.equal(found, expected) and found.dtype == torch.bfloat16
    assert all(torch.equal(tensor, model.network.state_dict()[name]) for name, tensor in before.items())


@supported
@pytest.mark.parametrize("rows", [1, 32, 300])
def test_a_layer_is_equal_to_the_bit(rows: int) -> None:
    layer = nn.Linear(640, 2048, dtype=torch.bfloat16).requires_grad_(False)
    given = torch.randn(2, rows, 640, generator=torch.Generator().manual_seed(rows)).bfloat16()
    assert torch.equal(PackedLinear(layer.weight, layer.bias)(given), layer(given))


def test_models_that_gain_nothing_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack_linear_layers(tiny.frozen("llama")) is tiny.frozen("llama")  # fp32 would give other bits
    model = half("llama")
    monkeypatch.setattr(packed_linear, "_SPARE", 1 << 50)
    assert pack_linear_layers(model) is model
