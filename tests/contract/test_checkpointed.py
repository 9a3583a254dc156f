"""Law: checkpointed. Gradient checkpointing changes memory, never gradients; and it does recompute."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import tiny
import torch
from contract.given import labelled, prompt, spec, words
from contract.laws import law
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.greedy_search import generate
from foreword.errors import ModelError
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.prompts.template import Row


def layers(model: FrozenModel) -> list[GradientCheckpointingLayer]:
    return [module for module in model.network.modules() if isinstance(module, GradientCheckpointingLayer)]


def batch_for(soft: SoftPrompt) -> Batch:
    at = (0,) * soft.spec.length if soft.spec.site == "input" else ()
    return collate([labelled((tiny.BOS, *words(n)), at, (-100, *words(n, 1))) for n in (4, 9)], pad=tiny.PAD)


def gradients(model: FrozenModel, soft: SoftPrompt, on: bool, *, inside: bool = True) -> list[Tensor]:
    """Gradients of every trained parameter; the backward pass inside the block or after it."""
    batch, block = batch_for(soft).to(model.device), model.gradient_checkpointing(on)
    with block:
        logits = model.predicting(batch, soft(), batch.labels >= 0)
        loss = nn.functional.cross_entropy(logits, batch.labels[batch.labels >= 0])
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    found = [parameter.grad for parameter in soft.parameters()]
    soft.zero_grad()
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


@law("checkpointed")
def test_gradients_with_checkpointing_equal_those_without(method: str, name: str) -> None:
    model = tiny.frozen(name)
    soft = prompt(model, spec(method))
    calls: list[int] = []
    hooks = [next(layer.children()).register_forward_hook(lambda *_, i=i: calls.append(i)) for i, layer in enumerate(layers(model))]
    try:
        off = gradients(model, soft, False)
        once = len(calls)
        for inside in (True, False):
            calls.clear()
            on = gradients(model, soft, True, inside=inside)
            assert once == len(hooks) and len(calls) == 2 * once, "every layer runs twice: forward, and again on the way back"
            for left, right in zip(off, on, strict=True):
                torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    finally:
        for hook in hooks:
            hook.remove()
    assert any(bool(gradient.abs().max() > 0) for gradient in off)


def test_only_the_layers_themselves_are_set_training_and_only_meanwhile() -> None:
    model = tiny.build("gpt2")
    with model.gradient_checkpointing():
        assert {type(module).__name__ for module in model.network.modules() if module.training} == {"GPT2Block"}
    assert not any(module.training or getattr(module, "gradient_checkpointing", False) for module in model.network.modules())
    with pytest.raises(KeyError), model.gradient_checkpointing():
        raise KeyError
    assert not any(module.training for module in model.network.modules())


def test_generation_after_the_block_is_what_it_was() -> None:
    model, batch = tiny.build("llama"), collate([Row((tiny.BOS, *words(5)))])
    before = generate(model, batch, None, max_new_tokens=6, stop=())
    with model.gradient_checkpointing():
        model.forward(batch)
    assert generate(model, batch, None, max_new_tokens=6, stop=()) == before


def test_switched_off_it_is_no_block_at_all() -> None:
    model = tiny.build("llama")
    assert isinstance(model.gradient_checkpointing(False), nullcontext)


def test_dropout_in_a_layer_itself_is_refused() -> None:
    model = tiny.build("opt", dropout=0.1)
    with pytest.raises(ModelError) as caught, model.gradient_checkpointing():
        pass
    assert str(caught.value) == (
        "model 'tiny-opt' has dropout 0.1 in its layers, which gradient checkpointing would switch on; "
        "load it by its name, which leaves dropout out, or train without gradient checkpointing."
    )
