"""Laws of encoder–decoders: baked, checkpointed, frozen, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import tiny_seq2seq
import torch
from contract.given import distance, prompt
from contract.given_seq2seq import row, row_for, spec, tokens
from contract.laws import law
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.beam_search import search
from foreword.prompts.soft_prompt import SoftPrompt, as_tokens
from foreword.prompts.tokens import VirtualTokens


def batch_for(soft: SoftPrompt) -> Batch:
    at = (0,) * soft.spec.length if soft.spec.site == "input" else ()
    return collate([row(4, 2, at), row(9, 5, at, 1)])


def loss_of(model: FrozenModel, soft: SoftPrompt) -> Tensor:
    batch = batch_for(soft).to(model.device)
    select = batch.labels >= 0
    return nn.functional.cross_entropy(model.predicting(batch, soft(), select), batch.labels[select])


def gradients(model: FrozenModel, soft: SoftPrompt, on: bool) -> list[Tensor]:
    with model.gradient_checkpointing(on):
        loss = loss_of(model, soft)
    loss.backward()
    found = [parameter.grad for parameter in soft.parameters()]
    soft.zero_grad()
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


@law("baked", "encoder-decoder")
def test_baked_equals_unbaked(method: str, name: str) -> None:
    model, made = tiny_seq2seq.frozen(name), spec(method)
    soft = prompt(model, made)
    flat = soft.bake()
    assert flat.shape == (made.length, made.width(model.shape)) and distance(flat, soft.origin) > 0.01
    batch = batch_for(soft)
    with torch.no_grad():
        ours, truth = model.forward(batch, as_tokens(flat, made, model.shape)), model.forward(batch, soft())
    assert distance(ours[batch.mask], truth[batch.mask]) < 1e-5


@law("checkpointed", "encoder-decoder")
def test_gradients_with_checkpointing_equal_those_without(method: str, name: str) -> None:
    model = tiny_seq2seq.build(name, **({"dropout": 0.0} if "t5" not in name else {}))
    soft = prompt(model, spec(method))
    layers = [module for module in model.network.modules() if isinstance(module, GradientCheckpointingLayer)]
    calls: list[int] = []
    for index, layer in enumerate(layers):
        leaf = next(module for module in layer.modules() if not list(module.children()))
        leaf.register_forward_hook(lambda *_, i=index: calls.append(i))
    off = gradients(model, soft, False)
    once = len(calls)
    on = gradients(model, soft, True)
    assert once == len(layers) and len(calls) == 3 * once, "every layer runs twice: forward, and again on the way back"
    for left, right in zip(off, on, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert any(bool(gradient.abs().max() > 0) for gradient in off)


@law("frozen", "encoder-decoder")
def test_training_leaves_the_base_model_bit_identical(method: str, name: str) -> None:
    model = tiny_seq2seq.frozen(name)
    soft = prompt(model, spec(method))
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    marks = [(p.data_ptr(), p._version) for p in model.network.parameters()]
    kept = dict(vars(model.network))
    optimiser = torch.optim.AdamW(soft.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = loss_of(model, soft)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        search(model, batch_for(soft), soft(), num_beams=2, max_new_tokens=2, stop=())
    assert losses[-1] < losses[0], "the prompt must learn, or this proves nothing"
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert [(p.data_ptr(), p._version) for p in model.network.parameters()] == marks, "nobody wrote to a weight, not even the same number"
    assert vars(model.network).keys() == kept.keys() and all(vars(model.network)[key] is kept[key] for key in kept), (
        "beams leave no rules behind"
    )
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
    assert not any(module.training for module in model.network.modules())


@law("threads", "encoder-decoder")
def test_threads_do_not_meet(method: str, name: str) -> None:
    model, barrier = tiny_seq2seq.frozen(name), Barrier(2)
    reads = (tokens(name, method, 4), tokens(name, method, 7, seed=1))
    batches = [collate([row_for(read, 8, 3)]) for read in reads]

    @torch.no_grad()
    def work(read: VirtualTokens, index: int) -> list[Tensor]:
        found = []
        for _ in range(2):
            barrier.wait(timeout=60)
            found.append(model.forward(batches[index], read))
        barrier.wait(timeout=60)
        beams = search(model, batches[index], read, num_beams=2, max_new_tokens=3, stop=())
        return [*found, torch.tensor(beams)]

    with torch.no_grad():
        alone = [model.forward(batch, read) for batch, read in zip(batches, reads, strict=True)]
        written = [torch.tensor(search(model, b, r, num_beams=2, max_new_tokens=3, stop=())) for b, r in zip(batches, reads, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, reads, range(2)))
    for truth, text, found in zip(alone, written, together, strict=True):
        assert all(distance(truth, one) < 1e-5 for one in found[:-1]) and torch.equal(found[-1], text)
