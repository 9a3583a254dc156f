"""SoftPrompt: origin + scale · displacement, read at a site."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foreword.methods import METHODS, recipe
from foreword.prompts.soft_prompt import SoftPrompt, as_tokens
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, flatten_kv
from foreword.shape import KVShape, ModelShape
from foreword.specs import PromptSpec, Reparam

SHAPE = ModelShape("llama", 8, 6, 99, 64, (KVShape(2, 4), KVShape(1, 4)))


def small(method: str) -> PromptSpec:
    spec = recipe(method, length=3)
    return replace(spec, reparam=replace(spec.reparam, hidden=4))


def made(spec: PromptSpec, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> SoftPrompt:
    width = spec.width(SHAPE)
    origin = torch.arange(3 * width, dtype=dtype).view(3, width)
    return SoftPrompt(spec, SHAPE, origin, torch.full((width,), 0.5, dtype=dtype), seed=seed)


@pytest.mark.parametrize("method", METHODS)
def test_it_starts_where_the_initialiser_says(method: str) -> None:
    soft = made(small(method))
    assert torch.equal(soft.bake(), soft.origin)
    read = soft()
    assert torch.equal(read.vectors if isinstance(read, EmbeddingPrefix) else flatten_kv(read), soft.origin)
    assert read.length == 3


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_fp32_and_nothing_but_the_reparameterisation_is_trained(method: str) -> None:
    soft = made(small(method), dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in soft.state_dict().values()} == {torch.float32}
    assert all(name.startswith("reparam.") for name, _ in soft.named_parameters())
    assert set(dict(soft.named_buffers())) == {"origin", "scale"}
    assert soft.bake().dtype == torch.float32


def test_the_displacement_is_in_units_of_the_scale() -> None:
    soft = made(small("prompt-tuning"))
    with torch.no_grad():
        next(soft.parameters()).fill_(2.0)
    assert torch.equal(soft.bake(), soft.origin + 1.0)
    assert soft.flat().requires_grad and not soft.bake().requires_grad


def test_what_is_baked_does_not_change_with_later_steps() -> None:
    soft = made(small("p-tuning-v2"))
    flat = soft.bake()
    with torch.no_grad():
        next(soft.parameters()).fill_(2.0)
    assert torch.equal(flat, soft.origin)


def test_a_seed_fixes_the_start_and_leaves_the_callers_random_numbers_alone() -> None:
    spec = small("prefix-tuning")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = made(spec, seed=1), made(spec, seed=1), made(spec, seed=2)
    assert torch.equal(torch.rand(3), expected)
    states = [dict(soft.named_parameters()) for soft in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["reparam.embedding"], states[2]["reparam.embedding"])


def test_dropout_is_for_training_only() -> None:
    soft = made(replace(small("p-tuning-v2"), dropout=0.5))
    read = soft.train()()
    assert isinstance(read, KVPrefix)
    dropped = flatten_kv(read)
    assert bool((dropped == 0).any()) and torch.equal(dropped[dropped != 0], 2 * soft.origin[dropped != 0])
    quiet = soft.eval()()
    assert isinstance(quiet, KVPrefix) and torch.equal(flatten_kv(quiet), soft.origin)
    assert torch.equal(soft.train().bake(), soft.origin), "what is saved was never dropped"


def test_some_layers_and_the_window_reach_the_prefix() -> None:
    spec = PromptSpec("p-tuning-v2", 3, "kv", Reparam(), layers="last:1", window="model")
    read = as_tokens(torch.zeros(3, spec.width(SHAPE)), spec, SHAPE)
    assert isinstance(read, KVPrefix)
    assert set(read.keys) == {1} and tuple(read.keys[1].shape) == (1, 3, 4) and read.window == "model"
