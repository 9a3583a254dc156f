"""Re-parameterisations start at zero displacement, and all their parameters learn."""

from __future__ import annotations

import pytest
import torch

from foreword.prompts.reparam import LSTM, MLP, Direct, build
from foreword.specs import Reparam

SPECS = [Reparam("direct"), Reparam("mlp", 6), Reparam("lstm", 6), Reparam("lstm", 7, 1)]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_the_start_is_no_displacement(spec: Reparam) -> None:
    made = build(spec, 5, 12)
    assert torch.equal(made(), torch.zeros(5, 12))


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_every_parameter_learns(spec: Reparam) -> None:
    made, target = build(spec, 5, 12), torch.linspace(-1, 1, 60).view(5, 12)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    first = {name: parameter.clone() for name, parameter in made.named_parameters()}
    losses = []
    for _ in range(30):
        loss = (made() - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not any(torch.equal(parameter, first[name]) for name, parameter in made.named_parameters())


def test_what_each_kind_is() -> None:
    assert [type(build(spec, 5, 12)) for spec in SPECS] == [Direct, MLP, LSTM, LSTM]
    assert sum(p.numel() for p in build(Reparam("direct"), 5, 12).parameters()) == 60
    assert sum(p.numel() for p in build(Reparam("mlp", 6), 5, 12).parameters()) == 5 * 6 + (36 + 6) + (72 + 12)


def test_the_virtual_tokens_of_an_lstm_differ_from_the_start() -> None:
    torch.manual_seed(0)
    made = LSTM(20, 12, 64, 2)
    with torch.no_grad():
        seen = made.inner(made.lstm(made.embedding[None])[0][0])
    assert seen.mean(0).abs().max() < 1e-5
    assert seen.square().mean().sqrt() == pytest.approx(1, abs=1e-5)
    alone = LSTM(1, 12, 64, 2)
    assert torch.equal(alone(), torch.zeros(1, 12)) and bool(alone.inner.weight.isfinite().all())


def test_only_the_lstm_ties_neighbours_together() -> None:
    for spec, together in ((SPECS[1], False), (SPECS[2], True)):
        made = build(spec, 5, 12)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_()
            before = made()
            made.embedding[0] += 1.0
            moved = (made() - before).abs().amax(1) > 1e-6
        assert bool(moved[0]) and bool(moved[1:].any()) is together
