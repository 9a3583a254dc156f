"""KV prefixes in the attention interface: what is installed, what is seen."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor
from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention

from foreword.backbone.attention.interface import EAGER, SDPA
from foreword.backbone.batch import collate
from foreword.prompts.template import Row
from foreword.prompts.tokens import KVPrefix


@pytest.mark.parametrize(("name", "installed"), [("llama", SDPA), ("gemma3_text", SDPA), ("gemma2", EAGER), ("gpt_oss", EAGER)])
def test_score_caps_and_sinks_need_the_familys_own_attention(name: str, installed: str) -> None:
    assert tiny.frozen(name).network.config._attn_implementation == installed


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


def test_pads_in_float16_are_numbers_under_eager_attention() -> None:
    """Every score is at Gemma 2's lower cap; added to the lowest number it was -∞ in all of a pad's row, so that its softmax was NaN."""
    model = tiny.build("gemma2", attn_logit_softcapping=50.0)
    with torch.no_grad():
        embeddings = model.network.get_input_embeddings().weight
        embeddings.copy_(embeddings[5].clone().expand_as(embeddings))
        for module in model.network.modules():
            if isinstance(module, Gemma2Attention):
                queries = module.q_proj.weight.view(2, 2, -1, 32)
                queries[:, 1] = queries[:, 0]
                module.k_proj.weight.copy_(-30 * queries[:, 0].reshape_as(module.k_proj.weight))
    model.network.to(torch.float16)
    batch = collate([Row((5,)), Row((5, 6, 7))])
    with torch.no_grad():
        assert model.hidden(batch).isfinite().all()
