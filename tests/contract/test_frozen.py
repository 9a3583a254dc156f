"""Law: frozen. Training a prompt leaves every weight and buffer of the base model bit-identical, and never gives one a gradient."""

from __future__ import annotations

import tiny
import torch
from contract.given import labelled, prompt, spec, words
from contract.laws import law
from torch import nn

from foreword.backbone.batch import collate
from foreword.backbone.generation.greedy_search import generate


@law("frozen")
def test_training_leaves_the_base_model_bit_identical(method: str, name: str) -> None:
    model = tiny.frozen(name)
    soft = prompt(model, spec(method))
    soft.train()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    first, marks = soft.bake(), [(p.data_ptr(), p._version) for p in model.network.parameters()]
    at = (0,) * soft.spec.length if soft.spec.site == "input" else ()
    batch = collate([labelled((tiny.BOS, *words(n)), at, (-100, *words(n, 1))) for n in (4, 9)]).to(model.device)
    optimiser = torch.optim.AdamW(soft.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model.predicting(batch, soft(), batch.labels >= 0), batch.labels[batch.labels >= 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    generate(model, batch, soft(), max_new_tokens=2, stop=())
    assert losses[-1] < losses[0] and not torch.equal(soft.bake(), first), "the prompt must learn, or this proves nothing"
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert [(p.data_ptr(), p._version) for p in model.network.parameters()] == marks, "nobody wrote to a weight, not even the same number"
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
    assert not any(module.training for module in model.network.modules())
