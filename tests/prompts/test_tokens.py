"""Virtual tokens: the flat form is PEFT's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foreword.errors import AdapterError
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, flatten_kv, unflatten_kv
from foreword.shape import KVShape

SAME = (KVShape(2, 4),) * 3
MIXED = (KVShape(2, 4), KVShape(1, 8), KVShape(4, 2))


def numbers(length: int, shapes: tuple[KVShape, ...]) -> Tensor:
    return torch.arange(length * sum(shape.width for shape in shapes), dtype=torch.float32).view(length, -1)


def test_the_layout_is_pefts() -> None:
    """PEFT 0.21 `get_prompt`: view(B, P, 2·L, K, D), permute(2, 0, 3, 1, 4), then split in twos; layer-major, key before value."""
    flat = numbers(5, SAME)
    theirs = flat.view(1, 5, 6, 2, 4).permute(2, 0, 3, 1, 4).split(2)
    ours = unflatten_kv(flat, range(3), SAME, "model")
    for layer, (key, value) in enumerate(theirs):
        assert torch.equal(ours.keys[layer], key[0]) and torch.equal(ours.values[layer], value[0])
    assert ours.length == 5 and ours.window == "model"


@pytest.mark.parametrize("shapes", [SAME, MIXED], ids=["same", "mixed"])
def test_flatten_is_the_inverse(shapes: tuple[KVShape, ...]) -> None:
    flat = numbers(5, shapes)
    prefix = unflatten_kv(flat, range(3), shapes, "pinned")
    assert [tuple(prefix.keys[i].shape) for i in range(3)] == [(shape.heads, 5, shape.dim) for shape in shapes]
    assert torch.equal(flatten_kv(prefix), flat)


def test_some_layers_keep_their_index() -> None:
    flat = numbers(2, SAME[:2])
    prefix = unflatten_kv(flat, (1, 4), SAME[:2], "pinned")
    assert set(prefix.keys) == set(prefix.values) == {1, 4}
    shuffled = KVPrefix(dict(reversed(prefix.keys.items())), prefix.values)
    assert torch.equal(flatten_kv(shuffled), flat)


def test_gradients_reach_the_flat_form() -> None:
    flat = numbers(2, SAME).requires_grad_()
    prefix = unflatten_kv(flat, range(3), SAME, "pinned")
    torch.stack([*prefix.keys.values(), *prefix.values.values()]).sum().backward()
    assert flat.grad is not None and torch.equal(flat.grad, torch.ones_like(flat))


def test_a_width_of_another_model_is_refused() -> None:
    with pytest.raises(AdapterError) as caught:
        unflatten_kv(numbers(5, SAME), range(3), MIXED[:2] + (KVShape(1, 4),), "pinned")
    assert str(caught.value) == "the prefix has width 48, but these 3 layers need 40; use the base model that it was trained on."


def test_lengths() -> None:
    assert EmbeddingPrefix(torch.zeros(7, 3)).length == 7
