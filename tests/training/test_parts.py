"""Sampler, calibration and the watch over the loss."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from training.train_features import TASK, examples, spec

from foreword.errors import DivergedError
from foreword.methods import METHODS
from foreword.prompts import init
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.training.loss_monitor import LossMonitor
from foreword.training.lr_scaling import absolute_rate, gain
from foreword.training.sampler import BucketSampler


@given(st.lists(st.integers(1, 99), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_holds_every_row_once_and_depends_on_seed_and_step_alone(lengths: list[int], size: int, seed: int) -> None:
    sampler = BucketSampler(lengths, size, seed)
    seen = [row for step in range(sampler.per_epoch) for row in sampler.batch(step)]
    assert len(set(seen)) == len(seen) == sampler.per_epoch * sampler.batch_size
    later = BucketSampler(lengths, size, seed)
    step = 2 * sampler.per_epoch
    assert later.batch(step) == sampler.batch(step)


def test_batches_hold_rows_of_like_length() -> None:
    lengths = [(i * 37) % 100 for i in range(640)]
    sampler = BucketSampler(lengths, 8, 0)
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in map(sampler.batch, range(sampler.per_epoch))]
    assert sum(spread) / len(spread) < 12  # shuffled batches of 8 spread over about 78


@pytest.mark.parametrize("name", METHODS)
def test_one_sign_step_moves_the_prompt_by_the_relative_rate(name: str) -> None:
    """The promise of a relative learning rate, for every re-parameterisation: RMS of movement / RMS of the target = rate."""
    model = tiny.frozen("llama")
    kind = spec(name)
    first = init.initial_values(kind, model, TASK.material(examples(8)))
    prompt = SoftPrompt(kind, model.shape, first.origin, first.scale)
    rate = absolute_rate(prompt, 0.01)
    optimizer = torch.optim.Adam(prompt.reparam.parameters(), lr=rate)
    (prompt.reparam() * torch.randn(prompt.origin.shape, generator=torch.Generator().manual_seed(7))).sum().backward()
    optimizer.step()
    moved = ((prompt.bake() - first.origin) / first.scale).square().mean().sqrt()
    assert moved == pytest.approx(0.01, rel=0.2)


def test_gain_leaves_the_prompt_as_it_was() -> None:
    model = tiny.frozen("llama")
    kind = spec("p-tuning")
    first = init.initial_values(kind, model, TASK.material(examples(8)))
    prompt = SoftPrompt(kind, model.shape, first.origin, first.scale)
    before = [p.clone() for p in prompt.parameters()]
    assert gain(prompt) > 1
    assert all(torch.equal(a, b) for a, b in zip(before, prompt.parameters(), strict=True))


def watched(losses: list[float]) -> list[str]:
    watch = LossMonitor(len(losses), 0.03)
    return [notice for step, loss in enumerate(losses, 1) if (notice := watch.update(loss, step))]


def test_a_falling_loss_says_nothing() -> None:
    assert watched([3 * math.exp(-i / 50) for i in range(200)]) == []


def test_a_plateau_is_said_once() -> None:
    notices = watched([2.0] * 200)
    assert notices == [
        "step 80: the loss has stayed near 2.000 for 60 steps; raise --learning-rate (now 0.03), use more virtual tokens, or another initialiser."
    ]


def test_a_rising_loss_is_said() -> None:
    notices = watched([1.0] * 40 + [3.0] * 160)
    assert notices[0] == "step 60: the loss rose from 1.000 to 3.000; lower --learning-rate (now 0.03) or raise --warmup."


def test_swings_are_said() -> None:
    notices = watched(([1.0] * 20 + [1.4] * 20) * 5)
    assert notices == ["step 100: the loss swings without falling; lower --learning-rate (now 0.03) or use a larger --batch-size."]


def test_no_number_is_refused() -> None:
    with pytest.raises(DivergedError):
        watched([1.0, float("inf")])
