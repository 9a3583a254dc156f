"""Law: peft. Real PEFT, given the same flat numbers, says the same; its order is prompt before BOS, its prefixes follow the model's window."""

from __future__ import annotations

import pytest
import tiny
import torch
from contract.given import TOLERANCE, distance, prompt, spec, words
from contract.laws import law
from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor

from foreword.backbone.batch import collate
from foreword.prompts.soft_prompt import as_tokens
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, VirtualTokens
from foreword.shape import ModelShape

LENGTH = 4
TEXTS = (words(1), (tiny.BOS, *words(13)))  # the second is longer than any window


def in_peft(name: str, shape: ModelShape, flat: Tensor, read: VirtualTokens) -> PeftModel:
    """A stock model of the same weights under PEFT, with its table overwritten by ours."""
    shared = {"task_type": "CAUSAL_LM", "num_virtual_tokens": LENGTH}
    if isinstance(read, EmbeddingPrefix):
        config = PromptTuningConfig(**shared, token_dim=shape.embedding)
    else:
        kv = shape.kv[0]
        config = PrefixTuningConfig(**shared, num_layers=shape.num_layers, token_dim=kv.heads * kv.dim, num_attention_heads=kv.heads)
    made = get_peft_model(tiny.network(name, attn_implementation="eager"), config).eval()
    with torch.no_grad():
        made.prompt_encoder["default"].embedding.weight.copy_(flat)
    return made


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks by the old name
@law("peft")
def test_peft_says_the_same(method: str, name: str) -> None:
    model, made = tiny.frozen(name), spec(method, LENGTH, window="model")
    flat = prompt(model, made).bake()
    read = as_tokens(flat, made, model.shape)
    theirs = in_peft(name, model.shape, flat, read)
    for ids in TEXTS:
        ours = model.forward(collate([Row(ids, (0,) * LENGTH if isinstance(read, EmbeddingPrefix) else ())]), read)[0]
        with torch.no_grad():
            truth = theirs(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0]
        assert distance(ours, truth[-len(ids) :]) < TOLERANCE
        assert len(truth) == len(ids) + (LENGTH if isinstance(read, EmbeddingPrefix) else 0)
