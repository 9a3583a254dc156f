"""Full fine-tuning: weights of its own, and a frozen model that stays as it is."""

from __future__ import annotations

import pytest
import tiny
import torch
from contract.given import distance, labelled, words
from torch import nn

from foreword.backbone.batch import Batch, collate
from foreword.backbone.weights import weight_adapters
from foreword.backbone.weights.full_finetuning import FullWeights, full_copy
from foreword.errors import ModelError
from foreword.recipe import Recipe


def train_features() -> Batch:
    return collate([labelled((tiny.BOS, *words(n)), (), (-100, *words(n, 1))) for n in (4, 9)], pad=tiny.PAD)


def learn(name: str, steps: int = 3) -> tuple[list[float], FullWeights, torch.Tensor]:
    """A few real steps; the losses, the weights and what the trained model says."""
    model, batch = tiny.build(name), train_features()
    before = {key: tensor.clone() for key, tensor in model.network.state_dict().items()}
    view, inside = full_copy(model)
    assert torch.equal(view.forward(batch), model.forward(batch)) and view.fingerprint == model.fingerprint
    optimizer, losses = torch.optim.AdamW(inside.parameters(), lr=1e-2), []
    for _ in range(steps):
        with view.gradient_checkpointing():
            logits = view.predicting(batch, None, batch.labels >= 0)
            loss = nn.functional.cross_entropy(logits, batch.labels[batch.labels >= 0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    again, _ = full_copy(model, tensors=inside.state() | {"head.weight": torch.ones(1)})
    assert torch.equal(again.forward(batch), view.forward(batch))
    return losses, inside, view.forward(batch)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_it_learns_on_weights_of_its_own_which_read_back_the_same(name: str) -> None:
    losses, inside, _ = learn(name)
    assert losses[-1] < 0.8 * losses[0]
    assert set(inside.state()) <= {f"full.{key}" for key, _ in tiny.network(name).named_parameters()}


def test_only_what_changed_is_kept_and_the_rest_is_the_frozen_models() -> None:
    model, batch = tiny.build("llama"), train_features()
    view, inside = full_copy(model)
    assert inside.state() == {}
    with torch.no_grad():
        view.network.get_submodule("model.norm").weight.add_(1)
    state = inside.state()
    assert list(state) == ["full.model.norm.weight"]
    changed = view.forward(batch)
    inside.load({})
    assert torch.equal(view.forward(batch), model.forward(batch))
    inside.load(state)
    assert torch.equal(view.forward(batch), changed) and distance(changed, model.forward(batch)) > 1e-2


def test_tied_weights_stay_tied_and_half_precision_trains_in_full() -> None:
    model = tiny.build("llama", tie_word_embeddings=True)
    model.network.to(torch.bfloat16)
    view, inside = full_copy(model)
    assert view.network.get_input_embeddings().weight is view.network.get_output_embeddings().weight
    assert {parameter.dtype for parameter in inside.parameters()} == {torch.float32} and inside.state() == {}
    assert model.dtype == torch.bfloat16 and view.dtype == torch.float32


def test_a_recipe_says_so_and_weights_of_another_base_are_refused() -> None:
    model = tiny.build("llama")
    view, inside = weight_adapters.apply(model, Recipe("full", full=True))
    assert isinstance(inside, FullWeights) and isinstance(inside, weight_adapters.WeightAdapter) and view is not model
    with pytest.raises(ModelError) as caught:
        inside.load({"full.model.norm.weight": torch.ones(16)})
    assert str(caught.value) == (
        "the adapter's weight model.norm.weight has shape [16], but 'tiny-llama' has [32]; load it on its own base model."
    )
    with pytest.raises(ModelError) as caught:
        inside.load({"full.transformer.wte.weight": torch.ones(2, 2)})
    assert str(caught.value) == (
        "the adapter's weight transformer.wte.weight has shape [2, 2], but 'tiny-llama' has none; load it on its own base model."
    )
