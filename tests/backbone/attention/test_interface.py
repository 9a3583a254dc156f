"""KV prefixes in the attention interface: what is installed, what is seen."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn

from foreword.backbone.attention import cpu_attention
from foreword.backbone.attention.interface import EAGER, SDPA
from foreword.backbone.attention.kv_prefix import PrefixAttachment
from foreword.backbone.batch import collate
from foreword.prompts.template import Row
from foreword.prompts.tokens import KVPrefix

LAYERS = [nn.Identity(), nn.Identity()]
SLOTS = {layer: index for index, layer in enumerate(LAYERS)}


@pytest.mark.parametrize(("name", "installed"), [("llama", SDPA), ("gemma3_text", SDPA), ("gemma2", EAGER), ("gpt_oss", EAGER)])
def test_score_caps_and_sinks_need_the_familys_own_attention(name: str, installed: str) -> None:
    assert tiny.frozen(name).network.config._attn_implementation == installed


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


def test_all_heads_of_a_padded_row_stay_finite() -> None:
    """A row of pads in front sees nothing there; nothing is not a number only for careless masks."""
    model = tiny.frozen("llama-grouped")
    batch = collate([Row((5,)), Row(tuple(range(5, 17)))])
    for training in (True, False):
        with torch.set_grad_enabled(training):
            assert bool(model.forward(batch).isfinite().all())


def test_a_prefix_in_some_layers_only_and_a_prefix_elsewhere_in_one_batch() -> None:
    model = tiny.frozen("llama-grouped")
    generator = torch.Generator().manual_seed(0)

    def side() -> Tensor:
        return torch.randn(2, 3, 8, generator=generator)

    first, last = KVPrefix({0: side()}, {0: side()}), KVPrefix({2: side()}, {2: side()})
    rows = [Row((5, 6, 7)), Row((8, 9))]
    together = model.forward(collate(rows), [first, last])
    for b, (row, read) in enumerate(zip(rows, (first, last), strict=True)):
        alone = model.forward(collate([row]), read)[0]
        assert (together[b, -len(row.ids) :] - alone).abs().max() < 1e-4


def test_gradients_through_packed_attention_equal_sdpas() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 5, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2))
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    ours = cpu_attention.attention(query, key, value, mask, None)
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    for left, right in zip(*(torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(left, right)
    assert cpu_attention.suits(query, key)
    assert cpu_attention.suits(query.bfloat16(), query.bfloat16())
    assert not cpu_attention.suits(query, query), "SDPA is faster in fp32 where every query head has keys of its own"
    with torch.no_grad():
        assert not cpu_attention.suits(query, key)
