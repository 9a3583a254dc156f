"""What one tiny forward pass meets is checked against the config."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import tiny_encoders
import tiny_seq2seq
import torch
from contract.laws import MODELS, family, kind_of

from foreword.backbone.attention.introspection import number_attentions
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import wrap
from foreword.errors import ModelError
from foreword.prompts.template import Row
from foreword.prompts.tokens import KVPrefix


def shared(name: str) -> FrozenModel:
    return {"causal": tiny, "encoder": tiny_encoders, "encoder-decoder": tiny_seq2seq}[kind_of(name)].frozen(name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for models in MODELS.values() for name in models])
def test_slots_are_numbered_as_the_shape_is(name: str) -> None:
    model = shared(name)
    slots = number_attentions(model.network, model.shape)
    assert list(slots.values()) == list(range(model.shape.num_layers)) and slots == model.slots
    if kind_of(name) == "encoder-decoder":
        encoder = {module for module in model.network.get_encoder().modules() if module in slots}
        assert {slots[module] for module in encoder} == {i for i, kv in enumerate(model.shape.kv) if kv.part == "encoder"}


def lying(name: str, **config: Any) -> FrozenModel:
    """A model whose config is changed once its layers stand."""
    network, model = (tiny_seq2seq if name == "t5" else tiny).network(name), shared(name)
    for key, value in config.items():
        setattr(network.config, key, value)
    return wrap(network, model.tokenizer.inner, name="liar")


@pytest.mark.parametrize(
    ("name", "config", "met", "promised"),
    [
        (
            "qwen3",
            {"head_dim": 8},
            "layer 0 of a model of type 'qwen3' has 2 key heads of width 16 and values of width 16",
            "2 heads of width 8",
        ),
        (
            "llama-grouped",
            {"num_key_value_heads": 4},
            "layer 0 of a model of type 'llama' has 2 key heads of width 8 and values of width 8",
            "4 heads of width 8",
        ),
        (
            "t5",
            {"d_kv": 4},
            "encoder layer 0 of a model of type 't5' has 4 key heads of width 8 and values of width 8",
            "4 heads of width 4",
        ),
    ],
)
def test_a_config_that_promises_other_keys_and_values_is_refused(name: str, config: dict[str, Any], met: str, promised: str) -> None:
    model = lying(name, **config)
    sides = {slot: torch.zeros(kv.heads, 2, kv.dim) for slot, kv in enumerate(model.shape.kv)}
    with pytest.raises(ModelError) as caught:
        model.forward(collate([Row((5, 6, 7))]), KVPrefix(sides, sides))
    assert str(caught.value) == f"{met}, but its config says {promised}; load it with the config that its weights were saved with."


def test_the_layer_that_differs_is_named() -> None:
    network = tiny_seq2seq.network("bart")
    model, layer = wrap(network, tiny_seq2seq.frozen("bart").tokenizer.inner), network.get_decoder().layers[1].encoder_attn
    layer.head_dim, layer.out_proj = 32, torch.nn.Linear(64, 32)
    layer.q_proj, layer.k_proj, layer.v_proj = (torch.nn.Linear(32, 64) for _ in range(3))
    with pytest.raises(ModelError) as caught:
        number_attentions(network, model.shape)
    assert str(caught.value) == (
        "cross layer 1 of a model of type 'bart' has 2 key heads of width 32 and values of width 32, but its config says 2 heads of width 16; "
        "load it with the config that its weights were saved with."
    )


def test_a_family_that_stores_no_keys_may_have_others_than_its_config_says() -> None:
    assert family("deepseek_v3").sites == ("input",)
    assert len(tiny.frozen("deepseek_v3").slots) == tiny.frozen("deepseek_v3").shape.num_layers


def test_one_pass_for_a_model_and_every_network_over_it() -> None:
    model, calls = tiny.build("llama"), []
    hook = model.network.base_model.register_forward_hook(lambda *_: calls.append(1))
    assert model.slots is model.slots and list(model.over(model.network).slots.values()) == [0, 1]
    hook.remove()
    assert len(calls) == 1
