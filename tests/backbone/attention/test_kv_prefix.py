"""KV prefixes of one pass: what each attention sees of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foreword.backbone.attention.kv_prefix import PrefixAttachment

LAYERS = [nn.Identity(), nn.Identity()]
SLOTS = {layer: index for index, layer in enumerate(LAYERS)}


def attachment(fading: bool, layer: int = 0) -> PrefixAttachment:
    zeros = torch.zeros(1, 1, 4, 2)
    mask = torch.tensor([[True, True, True, False]])
    return PrefixAttachment(
        SLOTS, {layer: zeros}, {layer: zeros}, {layer: mask}, torch.tensor([fading]), torch.tensor([[3, 4, 5]]), (3, None)
    )


@pytest.mark.parametrize(
    ("fading", "layer", "seen"),
    [
        (False, 0, [[1, 1, 1, 0]] * 3),
        (False, 1, [[1, 1, 1, 0]] * 3),
        (True, 1, [[1, 1, 1, 0]] * 3),
        (True, 0, [[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]),
    ],
)
def test_which_virtual_tokens_a_query_sees(fading: bool, layer: int, seen: list[list[int]]) -> None:
    made = attachment(fading, layer)
    text = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    key = torch.ones(1, 1, 3, 2)
    keys, values, mask = made.extend(LAYERS[layer], key, key, text)
    assert keys.shape == values.shape == (1, 1, 7, 2) and torch.equal(keys[:, :, 4:], key)
    assert mask[0, 0, :, :4].int().tolist() == seen and torch.equal(mask[..., 4:], text)
    _, _, additive = made.extend(LAYERS[layer], key, key, torch.zeros(1, 1, 3, 3))
    assert torch.equal(additive[..., :4] == 0, mask[..., :4]) and additive.dtype == torch.float32


def test_a_layer_without_a_prefix_is_left_alone() -> None:
    key, mask = torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 3, dtype=torch.bool)
    kept = attachment(False).extend(LAYERS[1], key, key, mask)
    assert kept[0] is key and kept[1] is key and kept[2] is mask


def test_one_prefix_is_a_view_for_every_row() -> None:
    made, key = attachment(False), torch.ones(5, 1, 3, 2)
    keys, _, mask = made.extend(LAYERS[0], key, key, torch.ones(1, 1, 3, 3, dtype=torch.bool))
    assert keys.shape == (5, 1, 7, 2) and mask.shape == (5, 1, 3, 7)
